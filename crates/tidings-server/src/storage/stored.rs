//! What is kept of a request under its idempotency key, so that a repeat gets the same response. Of notifications
//! these are the ids and times, because the repeated request has the rest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidings_notify::{Draft, Event, EventId};

use super::{Begun, StorageError};
use crate::idempotency::LONGEST_RUN;

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
    /// It is being carried out since this time.
    Begun(Timestamp),
}

impl<'a> Kept<'a> {
    /// The columns `events` and `response`. The first is JSON: `[[id, timestamp], …]`, or the time of a request
    /// that is being carried out.
    pub(super) fn columns(self) -> Result<(String, Option<&'a str>), StorageError> {
        let (events, response) = match self {
            Self::Events(events) => {
                let stored = events
                    .iter()
                    .map(|event| StoredEvent(event.id, event.timestamp));
                (serde_json::to_string(&stored.collect::<Vec<_>>()), None)
            }
            Self::Response(response) => (Ok("[]".to_owned()), Some(response)),
            Self::Begun(since) => (serde_json::to_string(&since), None),
        };
        Ok((events.map_err(StorageError::failed)?, response))
    }
}

/// What a request that is not accepted as notifications finds under its key.
pub(super) fn find(events: &str, response: Option<String>) -> Begun {
    if let Some(response) = response {
        return Begun::Repeated(response);
    }
    match serde_json::from_str::<Timestamp>(events) {
        Ok(since) => {
            let left = LONGEST_RUN - Timestamp::now().duration_since(since);
            if left.is_positive() {
                Begun::Running { left }
            } else {
                // Its server has ended before it was done.
                Begun::New
            }
        }
        Err(_) => Begun::Conflict,
    }
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_request_runs_until_it_counts_as_lost_with_its_server() {
        let begun = |ago: SignedDuration| {
            let (events, response) = Kept::Begun(Timestamp::now() - ago).columns().unwrap();
            assert_eq!(response, None);
            find(&events, None)
        };
        // -5: the clock of another instance is ahead.
        for (ago, expected) in [(0, 60), (20, 40), (55, 5), (-5, 65)] {
            let Begun::Running { left } = begun(SignedDuration::from_secs(ago)) else {
                panic!("{ago}");
            };
            let expected = SignedDuration::from_secs(expected);
            assert!(left <= expected, "{ago} {left}");
            assert!(
                left > expected - SignedDuration::from_secs(4),
                "{ago} {left}"
            );
        }
        assert_eq!(begun(LONGEST_RUN), Begun::New);
    }

    #[test]
    fn a_response_is_repeated_and_notifications_are_another_request() {
        let (events, response) = Kept::Response("text").columns().unwrap();
        let found = find(&events, response.map(str::to_owned));
        assert_eq!(found, Begun::Repeated("text".to_owned()));
        let (events, response) = Kept::Events(&[]).columns().unwrap();
        assert_eq!(response, None);
        assert_eq!(find(&events, None), Begun::Conflict);
    }
}
