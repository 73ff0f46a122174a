//! What is kept of a request that became notifications, so that a repeat gets the same response: the
//! ids and times, because the repeated request has the rest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidings_notify::{Draft, Event, EventId};

use super::StorageError;

/// What identifies an event that became of a request, beside the content of the request.
#[derive(Debug, Serialize, Deserialize)]
struct StoredEvent(EventId, Timestamp);

/// The ids and times of these events, as JSON: `[[id, timestamp], …]`.
pub(super) fn encode(events: &[Event]) -> Result<String, StorageError> {
    let stored = events
        .iter()
        .map(|event| StoredEvent(event.id, event.timestamp));
    serde_json::to_string(&stored.collect::<Vec<_>>()).map_err(StorageError::failed)
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
