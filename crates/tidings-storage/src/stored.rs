//! What is kept of a request under its idempotency key, so that a repeat gets the same response. Of notifications
//! these are the ids and times, because the repeated request has the rest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidings_notify::{Draft, Event, EventId};

use super::{Changed, StorageError};

/// What identifies an event that became of a request, beside the content of the request.
#[derive(Debug, Serialize, Deserialize)]
struct StoredEvent(EventId, Timestamp);

/// What is kept of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept<'a> {
    /// It became these notifications.
    Events(&'a [Event]),
    /// It became something else, and this was its response.
    Response(&'a str),
}

impl<'a> Kept<'a> {
    /// The columns `events` and `response`. The first is JSON: `[[id, timestamp], …]`.
    pub(super) fn columns(self) -> Result<(String, Option<&'a str>), StorageError> {
        let events = match self {
            Self::Events(events) => events,
            Self::Response(response) => return Ok(("[]".to_owned(), Some(response))),
        };
        let stored = events
            .iter()
            .map(|event| StoredEvent(event.id, event.timestamp));
        let stored = serde_json::to_string(&stored.collect::<Vec<_>>());
        Ok((stored.map_err(StorageError::failed)?, None))
    }
}

/// What a request that does not become notifications finds under its key.
pub(super) fn find(response: Option<String>) -> Changed {
    response.map_or(Changed::Conflict, Changed::Repeated)
}

/// The notifications that the first request became: the same content, with the ids and times of then.
pub(super) fn decode(drafts: Vec<Draft>, stored: &str) -> Result<Vec<Event>, StorageError> {
    let stored: Vec<StoredEvent> = serde_json::from_str(stored).map_err(StorageError::failed)?;
    if stored.len() != drafts.len() {
        return Err(StorageError::failed("a stored request has another length"));
    }
    let events = drafts.into_iter().zip(stored);
    Ok(events
        .map(|(draft, StoredEvent(id, time))| Event::from_draft(draft.with_timestamp(time), id))
        .collect())
}
