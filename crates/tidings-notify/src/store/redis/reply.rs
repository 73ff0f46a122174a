//! What the scripts reply, and what it means.

use std::sync::Arc;

use crate::event::at_microsecond;
use crate::{
    Cause, ChangeMark, Epoch, Event, EventId, EventKey, EventType, Head, Payload, StoreError,
    UserId,
};

/// Epoch, first and top number, delivered, unread, unseen, revision.
pub(super) type HeadReply = (u64, u64, u64, u64, u64, u64, u64);

/// Number, type, payload, timestamp, key, and when it was read and archived; an empty text is none.
pub(super) type EventReply = (u64, String, String, i64, String, String, String);

pub(super) type PageReply = (HeadReply, Vec<EventReply>);

/// Head, events, below which number to continue, and whether it ended because the page is full.
pub(super) type InboxReply = (HeadReply, Vec<EventReply>, u64, bool);

/// Head, how many events changed, the number up to which, and the places of single ones.
pub(super) type ChangeReply = (HeadReply, u64, i64, Vec<usize>);

/// Run of the server, the number that was reached, whether there is more, whether the mark was known, and user
/// and head of each log.
pub(super) type ChangesReply = (String, u64, bool, bool, Vec<(String, HeadReply)>);

/// How many events were removed, and time and user of the log that was passed over last.
pub(super) type CleanupReply = (u64, String, String);

/// A reply that the scripts of this program do not give.
#[derive(Debug, thiserror::Error)]
#[error("the server replied something unexpected")]
struct Unexpected;

/// The error of an append whose reply cannot be read: its events are stored, and another attempt would store them twice.
pub(super) fn unexpected() -> StoreError {
    StoreError::OutcomeUnknown(Cause::new(Unexpected))
}

pub(super) fn head(reply: HeadReply) -> Head {
    let (epoch, first_seq, top_seq, delivered_seq, unread, unseen, revision) = reply;
    Head {
        epoch: Epoch::from_u64(epoch),
        first_seq,
        top_seq,
        delivered_seq,
        unread,
        unseen,
        revision,
    }
}

pub(super) fn event(user: &UserId, epoch: Epoch, reply: EventReply) -> Result<Event, StoreError> {
    let (seq, event_type, payload, timestamp, key, read_at, archived_at) = reply;
    let at = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(at_microsecond).map(Some),
    };
    let key = (!key.is_empty()).then(|| EventKey::new(key)).transpose();
    Ok(Event {
        id: EventId::new(epoch, seq),
        user: user.clone(),
        event_type: EventType::new(event_type).map_err(StoreError::backend)?,
        payload: Payload::from_stored(payload).map_err(StoreError::backend)?,
        timestamp: at_microsecond(timestamp),
        read_at: at(&read_at).map_err(StoreError::backend)?,
        archived_at: at(&archived_at).map_err(StoreError::backend)?,
        key: key.map_err(StoreError::backend)?,
    })
}

pub(super) fn events(
    user: &UserId,
    epoch: Epoch,
    replies: Vec<EventReply>,
) -> Result<Vec<Event>, StoreError> {
    let events = replies.into_iter().map(|reply| event(user, epoch, reply));
    events.collect()
}

/// A mark: a number, and the run of the server that counts.
pub(super) fn mark(run: &str, number: u64) -> ChangeMark {
    let bytes: Vec<u8> = number
        .to_be_bytes()
        .into_iter()
        .chain(run.bytes())
        .collect();
    ChangeMark::from_bytes(Arc::<[u8]>::from(bytes))
}

pub(super) fn parse_mark(mark: &ChangeMark) -> Option<(&str, u64)> {
    let (number, run) = mark.as_bytes().split_first_chunk()?;
    Some((str::from_utf8(run).ok()?, u64::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_an_append_whose_reply_cannot_be_read_may_have_been_done() {
        assert!(unexpected().may_have_been_done());
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let written = mark("0123abcd", 258);
        assert_eq!(parse_mark(&written), Some(("0123abcd", 258)));
        assert_eq!(parse_mark(&ChangeMark::from_bytes([1, 2])), None);
    }
}
