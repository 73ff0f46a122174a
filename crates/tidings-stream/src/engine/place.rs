//! The place where a group begins, as functions and scripts of stores get it.

use super::time;
use crate::{Error, MessageId, StartFrom};

impl StartFrom {
    /// Its kind, and the message or the time.
    pub(super) fn parts(self) -> (&'static str, i64) {
        match self {
            Self::Latest => ("latest", 0),
            Self::Earliest => ("earliest", 0),
            Self::After(id) => ("after", i64::try_from(id.as_u64()).unwrap_or(i64::MAX)),
            Self::At(at) => ("at", time::first_milli(at)),
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
