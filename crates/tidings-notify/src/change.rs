//! Changes of the inbox: what a caller can do, and what the user's streams get.

use std::sync::Arc;

use crate::{EventId, StoreError};

/// Most events that one [`InboxAction`] names. What is marked "up to" an event, or all, has no limit.
pub const MAX_IDS: usize = 10_000;

/// What to change in a user's inbox. Ids of other logs, and of events that are gone, change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboxAction {
    /// Marks these events as read.
    Read(Vec<EventId>),
    /// Marks all events of the inbox as read, up to and including this one, so that events which the
    /// user has not been shown stay unread. Archived events stay as they are.
    ReadUpTo(EventId),
    /// Marks all events of the inbox as read.
    ReadAll,
    /// Marks these events as unread again.
    Unread(Vec<EventId>),
    /// Takes these events out of the inbox and out of its counts. They stay in the log.
    Archive(Vec<EventId>),
    /// Puts these events back into the inbox, read or unread as they were.
    Unarchive(Vec<EventId>),
    /// The user has seen that there is everything up to and including this event.
    SeeUpTo(EventId),
    /// The user has seen that there is everything there is.
    SeeAll,
}

impl InboxAction {
    /// Refuses more events than one action may name.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let (_, ids) = self.name_and_ids();
        StoreError::check_count("ids", ids.len(), MAX_IDS)
    }

    /// Its name for the functions of a server, and the ids that it is about: none stand for all.
    pub(crate) fn name_and_ids(&self) -> (&'static str, &[EventId]) {
        match self {
            Self::Read(ids) => ("read", ids),
            Self::Unread(ids) => ("unread", ids),
            Self::Archive(ids) => ("archive", ids),
            Self::Unarchive(ids) => ("unarchive", ids),
            Self::ReadUpTo(id) => ("read_up_to", std::slice::from_ref(id)),
            Self::ReadAll => ("read_up_to", &[]),
            Self::SeeUpTo(id) => ("see_up_to", std::slice::from_ref(id)),
            Self::SeeAll => ("see_up_to", &[]),
        }
    }

    /// What it has changed: the single events, or those up to one, if that is of this log.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn changed(&self, ids: Vec<EventId>) -> Changed {
        let up_to = |what: fn(EventId) -> Changed| {
            ids.first().copied().map_or(Changed::Read([].into()), what)
        };
        match self {
            Self::ReadUpTo(_) | Self::ReadAll => up_to(Changed::ReadUpTo),
            Self::SeeUpTo(_) | Self::SeeAll => up_to(Changed::SeenUpTo),
            Self::Read(_) => Changed::Read(ids.into()),
            Self::Unread(_) => Changed::Unread(ids.into()),
            Self::Archive(_) => Changed::Archived(ids.into()),
            Self::Unarchive(_) => Changed::Unarchived(ids.into()),
        }
    }
}

/// What a call to [`Store::change`](crate::Store::change) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxUpdate {
    /// How many events changed their state: for the actions on what is seen, how many are not unseen
    /// any more.
    pub changed: u64,
    /// The log's [revision](crate::Head::revision) afterwards. Unchanged when nothing changed.
    pub revision: u64,
    /// What the user's streams get. Its counts are exact even when nothing changed.
    pub change: InboxChange,
}

impl InboxUpdate {
    /// What a call does for a user without a log.
    pub fn nothing() -> Self {
        Self {
            changed: 0,
            revision: 0,
            change: InboxChange {
                what: Changed::Read([].into()),
                unread: 0,
                unseen: 0,
                cursor: EventId::ORIGIN,
            },
        }
    }
}

/// A change of the user's inbox, with its counts afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxChange {
    /// What changed.
    pub what: Changed,
    /// How many events are unread now.
    pub unread: u64,
    /// How many events are unseen now.
    pub unseen: u64,
    /// The newest event that the counts include: the log's top at the time of the change.
    pub cursor: EventId,
}

/// What an [`InboxChange`] changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// These events were marked as read.
    Read(Arc<[EventId]>),
    /// All events of the inbox up to and including this one were marked as read.
    ReadUpTo(EventId),
    /// These events were marked as unread.
    Unread(Arc<[EventId]>),
    /// These events were archived.
    Archived(Arc<[EventId]>),
    /// These events were put back into the inbox.
    Unarchived(Arc<[EventId]>),
    /// Everything up to and including this event was seen.
    SeenUpTo(EventId),
    /// Events with a key, which the stream has given before this change, have replaced earlier events
    /// with the same key.
    Replaced,
    /// Not known: the change was made elsewhere, or the reader lags too far behind to get each
    /// one. The counts are right; a caller that shows single events reads the inbox again.
    Unknown,
}
