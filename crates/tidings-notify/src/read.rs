//! Read and unread: what is marked, and what a stream hears about it.

use std::sync::Arc;

use crate::EventId;

/// Which events a call marks as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadScope {
    /// These. Ids of other logs and of events that are gone mark nothing.
    Ids(Vec<EventId>),
    /// All up to and including this one, so that events which the user has not seen yet stay
    /// unread. An id of another log marks nothing.
    UpTo(EventId),
    /// All that there are.
    All,
}

/// What a call to [`Store::mark_read`](crate::Store::mark_read) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadUpdate {
    /// How many events went from unread to read.
    pub changed: u64,
    /// The log's [read revision](crate::Head::read_revision) afterwards. Unchanged when nothing
    /// changed.
    pub revision: u64,
    /// What to tell the user's streams. Its count is exact even when nothing changed.
    pub change: ReadChange,
}

impl ReadUpdate {
    /// What a call does for a user without a log.
    pub fn nothing() -> Self {
        Self {
            changed: 0,
            revision: 0,
            change: ReadChange {
                marked: Marked::Ids([].into()),
                unread: 0,
                as_of: EventId::ORIGIN,
            },
        }
    }
}

/// A change of what the user has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChange {
    /// Which events were marked.
    pub marked: Marked,
    /// How many events are unread now.
    pub unread: u64,
    /// The newest event that `unread` counts: the log's top at the time of the change.
    pub as_of: EventId,
}

/// Which events a [`ReadChange`] marked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Marked {
    /// These.
    Ids(Arc<[EventId]>),
    /// All up to and including this one.
    UpTo(EventId),
    /// Not known: the change was made elsewhere, or the reader lags too far behind to be told each
    /// one. The count is right; a caller that shows single events reads the inbox again.
    Unknown,
}
