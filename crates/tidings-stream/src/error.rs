use tidings_reconnect::Cause;

use crate::{InvalidName, MessageId};

/// Why a stream could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The streams, or the store below them, were closed.
    #[error("the streams are closed")]
    Closed,
    /// A name cannot be used.
    #[error("the name in `{field}` cannot be used")]
    InvalidName {
        /// Which name: `app`, `namespace`, `stream`, `group` or `dead_letter_stream`.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidName,
    },
    /// A setting is outside its range.
    #[error("expected `{field}` to be {expected}")]
    InvalidOption {
        /// Which setting.
        field: &'static str,
        /// The range.
        expected: &'static str,
    },
    /// A part of a message is larger than any engine takes, or a batch larger than this one takes.
    #[error("expected `{field}` of at most {limit} bytes, got {length}")]
    TooLarge {
        /// Which part: `payload`, `headers`, `publish_key` or `ordering_key`; or `batch`, for all messages of a
        /// publish.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// A new group was to start after a message that has not been published yet. Starting there
    /// would skip messages in silence.
    #[error("expected a start of at most {newest}, the newest message, got {start}")]
    StartAhead {
        /// The position that was asked for.
        start: MessageId,
        /// The id of the newest message; 0 when there is none.
        newest: MessageId,
    },
    /// The group was deleted, or never created, or the store has lost it.
    #[error("the consumer group does not exist")]
    UnknownGroup,
    /// The claim of a message is lost: its time was up, another claim has taken it, or its group was moved.
    /// What was done for it in this transaction must be rolled back.
    #[error("the claim of the message is lost")]
    ClaimLost,
    /// The store has no room left. Reads continue; publishing succeeds again once there is room.
    #[error("the store is full")]
    Full(#[source] Cause),
    /// The store did not reply, or what it replied cannot be read: it may have done what it was asked or not. A publish
    /// that is repeated may be stored twice, unless its message has a
    /// [publish key](crate::NewMessage::with_publish_key).
    #[error("the store did not reply, so the outcome is unknown")]
    OutcomeUnknown(#[source] Cause),
    /// The store failed, and has not done what it was asked.
    #[error("the store failed")]
    Backend(#[source] Cause),
}

impl Error {
    /// Wraps the error of a store, for engines.
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(Cause::new(source))
    }

    /// Wraps the error of a store that did not reply, for engines.
    pub fn outcome_unknown(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::OutcomeUnknown(Cause::new(source))
    }

    /// Whether the call may have been done although it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// The word for it in metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::InvalidName { .. } => "invalid_name",
            Self::InvalidOption { .. } => "invalid_option",
            Self::TooLarge { .. } => "too_large",
            Self::StartAhead { .. } => "start_ahead",
            Self::UnknownGroup => "unknown_group",
            Self::ClaimLost => "claim_lost",
            Self::Full(_) => "full",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::Backend(_) => "backend",
        }
    }
}

/// What may fail with an [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            Error::Full(error().into()),
            Error::outcome_unknown(error()),
            Error::backend(error()),
        ] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }
}
