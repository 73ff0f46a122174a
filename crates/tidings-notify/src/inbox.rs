//! The inbox: the same log, read newest first.

use crate::{Event, EventId, EventType, Head};

/// Events in a page of the inbox unless asked otherwise.
pub const DEFAULT_INBOX_LIMIT: usize = 50;

/// Most events in a page of the inbox: a larger limit is cut to it.
pub const MAX_INBOX_LIMIT: usize = 1000;

/// Most bytes of payloads in a page of the inbox, except when it has one event only: 4 MiB. A page
/// that is cut by it continues like any other.
pub const MAX_INBOX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// What to list of a user's inbox: by default the newest 50 events that are not archived, read or not,
/// of every type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct InboxQuery {
    pub(crate) before: Option<EventId>,
    pub(crate) event_type: Option<EventType>,
    pub(crate) unread_only: bool,
    pub(crate) archived_only: bool,
    pub(crate) limit: usize,
}

impl Default for InboxQuery {
    fn default() -> Self {
        Self {
            before: None,
            event_type: None,
            unread_only: false,
            archived_only: false,
            limit: DEFAULT_INBOX_LIMIT,
        }
    }
}

impl InboxQuery {
    /// Goes on after an earlier page, with what it gave as [`InboxPage::next`].
    pub fn with_cursor(mut self, next: EventId) -> Self {
        self.before = Some(next);
        self
    }

    /// Lists only events of this type.
    pub fn with_event_type(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// Lists only events that are unread.
    pub fn with_unread_only(mut self) -> Self {
        self.unread_only = true;
        self
    }

    /// Lists only events that are archived, instead of those that are not.
    pub fn with_archived_only(mut self) -> Self {
        self.archived_only = true;
        self
    }

    /// Sets the most events that a page holds: 1 to [`MAX_INBOX_LIMIT`]; other numbers are moved
    /// to the nearest of these. A page of large events may hold fewer: [`MAX_INBOX_PAGE_BYTES`].
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, MAX_INBOX_LIMIT);
        self
    }

    /// Older than which event the page begins, if it is not the first.
    pub fn cursor(&self) -> Option<EventId> {
        self.before
    }

    /// The only type listed, if there is one.
    pub fn event_type(&self) -> Option<&EventType> {
        self.event_type.as_ref()
    }

    /// Whether only unread events are listed.
    pub fn is_unread_only(&self) -> bool {
        self.unread_only
    }

    /// Whether only archived events are listed.
    pub fn is_archived_only(&self) -> bool {
        self.archived_only
    }

    /// The most events that the page holds.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// A page of a user's inbox. All of it is from one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// The events, newest first.
    pub events: Vec<Event>,
    /// The cursor of the next page, or `None` when this is the last. A page that has a next one may have fewer
    /// events than the limit, or none: it ended at the size of a page, or while the inbox was changed.
    pub next: Option<EventId>,
    /// How many events of the whole inbox are unread, whatever the query filters.
    pub unread: u64,
    /// How many events of the whole inbox are unseen.
    pub unseen: u64,
    /// The top of the log: a stream from here misses nothing that the page does not show.
    pub cursor: EventId,
}

impl InboxPage {
    /// The inbox of a user who never got an event.
    pub fn empty() -> Self {
        Self::of(&Head::EMPTY)
    }

    /// A page without events of a log that stands here.
    pub fn of(head: &Head) -> Self {
        Self {
            events: Vec::new(),
            next: None,
            unread: head.unread,
            unseen: head.unseen,
            cursor: head.top(),
        }
    }
}
