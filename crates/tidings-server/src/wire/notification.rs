//! Notifications and the inbox. The JSON of one notification is that of [`Event`].

use serde::Serialize;
use tidings_notify::{Event, EventId, Head, InboxChange};

/// A page of the inbox, newest first.
#[derive(Debug, Serialize)]
pub(crate) struct Inbox {
    pub(crate) data: Vec<Event>,
    /// The `cursor` of the next page.
    pub(crate) next: Option<EventId>,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// How many notifications of the whole inbox are unread and unseen, and the newest of its log: a stream
/// that begins after it misses nothing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Counts {
    pub(crate) unread: u64,
    pub(crate) unseen: u64,
    pub(crate) cursor: EventId,
}

impl From<&InboxChange> for Counts {
    fn from(change: &InboxChange) -> Self {
        Self {
            unread: change.unread,
            unseen: change.unseen,
            cursor: change.cursor,
        }
    }
}

impl From<&Head> for Counts {
    fn from(head: &Head) -> Self {
        Self {
            unread: head.unread,
            unseen: head.unseen,
            cursor: head.top(),
        }
    }
}

/// The payload of a notification that was sent as `message`.
#[derive(Debug, Serialize)]
pub(crate) struct MessagePayload<M> {
    pub(crate) message: M,
}
