//! The place where a group begins.

use jiff::Timestamp;

use crate::{Error, MessageId, Result, StartFrom};

impl StartFrom {
    /// The number before the first one that a group gets, of a stream whose oldest message is `tail` and whose
    /// newest is `head`. `first_at` finds the first number that was appended at a time or later.
    pub(super) fn position(
        self,
        tail: u64,
        head: u64,
        first_at: impl FnOnce(Timestamp) -> Result<u64>,
    ) -> Result<u64> {
        match self {
            Self::Latest => Ok(head),
            Self::Earliest => Ok(tail - 1),
            Self::After(id) if id.as_u64() > head => Err(self.is_ahead_of(head)),
            Self::After(id) => Ok(id.as_u64().max(tail - 1)),
            Self::At(time) => first_at(time).map(|first| first - 1),
        }
    }

    /// Its kind, and the message or the time, as functions and scripts of stores get it.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(super) fn parts(self) -> (&'static str, i64) {
        match self {
            Self::Latest => ("latest", 0),
            Self::Earliest => ("earliest", 0),
            Self::After(id) => ("after", i64::try_from(id.as_u64()).unwrap_or(i64::MAX)),
            Self::At(at) => ("at", super::time::first_milli(at)),
        }
    }

    /// The error of a place ahead of the newest message.
    pub(super) fn is_ahead_of(self, newest: u64) -> Error {
        let start = match self {
            Self::After(id) => id,
            // No other place can be ahead.
            _ => MessageId::from_u64(0),
        };
        Error::StartAhead {
            start,
            newest: MessageId::from_u64(newest),
        }
    }
}
