//! What a stream gives.

use std::sync::Arc;

use crate::{Event, EventId, InboxChange};

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The cursor that the client should resume from if the stream breaks before its first item.
    ///
    /// It is the place where the stream begins, except when the stream begins with a gap: then it
    /// is the client's own cursor, so that the gap is reported again. It is [`EventId::ORIGIN`] where
    /// the client has none: when the cursor could not be read, and when events after the time asked
    /// for may have been removed.
    pub cursor: EventId,
    /// The newest event when the stream was opened.
    pub top: EventId,
    /// How many events were unread then.
    pub unread: u64,
    /// How many events were unseen then.
    pub unseen: u64,
}

/// What a stream gives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// The next event.
    Event(Arc<Event>),
    /// Events before the next one are missing.
    Gap(Gap),
    /// Everything that was there when the stream was opened has been given. Comes once.
    CaughtUp {
        /// Where the reader is.
        cursor: EventId,
    },
    /// The user's inbox was changed, on another screen or elsewhere.
    Changed(InboxChange),
}

/// A stretch of the log that a stream cannot give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The reader's cursor, if it had one that could be read.
    pub from: Option<EventId>,
    /// Where the stream continues: the cursor before the first event that follows.
    pub to: EventId,
    /// Why.
    pub reason: GapReason,
}

/// Why a stream has a [`Gap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// The cursor is not an event id.
    Invalid,
    /// The cursor is of another log, or of an earlier incarnation of this one.
    UnknownEpoch,
    /// Events after the cursor have been removed by age or number.
    Expired,
    /// The cursor is beyond the newest event: the log was put back to an older copy.
    Ahead,
}

impl GapReason {
    /// The reason in lower case with underscores, for wire formats: `invalid`, `unknown_epoch`,
    /// `expired`, `ahead`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::UnknownEpoch => "unknown_epoch",
            Self::Expired => "expired",
            Self::Ahead => "ahead",
        }
    }

    /// Why a log from `first_seq` to `top` cannot continue after `cursor`, if it cannot.
    pub(crate) fn between(cursor: EventId, top: EventId, first_seq: u64) -> Option<Self> {
        if cursor.epoch != top.epoch && cursor != EventId::ORIGIN {
            Some(Self::UnknownEpoch)
        } else if cursor.seq > top.seq {
            Some(Self::Ahead)
        } else if cursor.seq < first_seq.saturating_sub(1) {
            Some(Self::Expired)
        } else {
            None
        }
    }
}
