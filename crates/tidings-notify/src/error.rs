use std::error::Error as StdError;

use tidings_reconnect::Cause;

/// Why a call to a [`Store`](crate::Store) failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed. Nothing was done.
    #[error("the notification store is closed")]
    Closed,
    /// The disk is full, and nothing was done. Reads continue; writes succeed again once there is room.
    #[error("the notification store is full")]
    Full(#[source] Cause),
    /// The store cannot be used for the moment: another process holds the lock of its file, or a failure of
    /// another call rolled this one back, or its server cannot be reached. Nothing was done. The call may be
    /// repeated.
    #[error("the notification store is not available")]
    Unavailable(#[source] Cause),
    /// The server of the store did not reply, or what it replied cannot be read: it may have done what it was asked or
    /// not. An append that is repeated may store its events twice. In a transaction of the caller's own nothing was done, because it
    /// cannot be committed any more.
    #[error("the notification store did not reply, so the outcome is unknown")]
    OutcomeUnknown(#[source] Cause),
    /// Another transaction has held the log of one of the users for too long, or thousands of calls wait for such logs
    /// already. Nothing was done. The call may be repeated.
    #[error("another transaction holds the log of one of the users")]
    Locked,
    /// There are too many drafts, ids or users for one call, which would hold up the calls of others. Nothing was done:
    /// make several calls.
    #[error("expected at most {most} {what} in one call")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The store has no number left for another event of this user, or for another user.
    #[error("the notification store has no numbers left")]
    NumbersExhausted,
    /// The cursor belongs to another log, or to an earlier incarnation of this one.
    #[error("expected a cursor of this user's present log")]
    ForeignCursor,
    /// An option is not within its range.
    #[error("expected {field} to be {expected}")]
    InvalidOption {
        /// The option.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The store returned something that its contract does not allow.
    #[error("the notification store broke its contract: {rule}")]
    ContractBroken {
        /// The rule that it broke.
        rule: &'static str,
    },
    /// The backend failed.
    #[error("the notification store failed")]
    Backend(#[source] Cause),
}

impl StoreError {
    /// Wraps the failure of a backend.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Backend(Cause::new(source))
    }

    /// Refuses more than one call may be about.
    pub(crate) fn check_count(what: &'static str, count: usize, most: usize) -> Result<(), Self> {
        if count > most {
            return Err(Self::TooMany { what, most });
        }
        Ok(())
    }

    /// Whether the call may have been done although it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }
}

#[cfg(feature = "postgres")]
impl From<tidings_postgres::Error> for StoreError {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            tidings_postgres::Error::Closed => Self::Closed,
            unknown if unknown.may_have_been_done() => Self::OutcomeUnknown(unknown.into()),
            full if full.is_full() => Self::Full(full.into()),
            unavailable if unavailable.is_unavailable() => Self::Unavailable(unavailable.into()),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "redis")]
impl From<tidings_redis::Error> for StoreError {
    fn from(error: tidings_redis::Error) -> Self {
        match error {
            unknown if unknown.may_have_been_done() => Self::OutcomeUnknown(unknown.into()),
            full if full.is_full() => Self::Full(full.into()),
            unavailable if unavailable.is_unavailable() => Self::Unavailable(unavailable.into()),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<tidings_sqlite::Error> for StoreError {
    fn from(error: tidings_sqlite::Error) -> Self {
        match error {
            tidings_sqlite::Error::Closed => Self::Closed,
            full if full.is_full() => Self::Full(full.into()),
            unavailable if unavailable.is_unavailable() => Self::Unavailable(unavailable.into()),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        tidings_sqlite::Error::from(error).into()
    }
}

/// Why a call to a [`Notifier`](crate::Notifier) failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The notifier was closed, or the runtime that it was made on has ended.
    #[error("the notifier is closed")]
    Closed,
    /// The user is offline and the notifier is configured to skip such users: nothing was stored.
    #[error("the user is offline, and notifications for offline users are skipped")]
    Offline,
    /// The store failed. Nothing was delivered that is not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether the call may have been done although it failed: see [`StoreError::OutcomeUnknown`].
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_have_been_done())
    }
}

/// The stream has ended, because it, its notifier or its store was closed, or the notifier's runtime has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the notification stream is closed")]
pub struct Closed;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn what_postgres_may_have_done_is_an_unknown_outcome() {
        use tidings_postgres::Error as Below;
        for unknown in [Below::late(), Below::NoRow] {
            assert!(StoreError::from(unknown).may_have_been_done());
        }
        let unsent = Below::Unsent(io::Error::other("away").into());
        assert!(!StoreError::from(unsent).may_have_been_done());
    }

    #[cfg(feature = "redis")]
    #[test]
    fn what_redis_may_have_done_is_an_unknown_outcome() {
        use tidings_redis::Error as Below;
        let cause = || io::Error::other("away").into();
        for unknown in [Below::NoReply(cause()), Below::Unexpected(cause())] {
            assert!(StoreError::from(unknown).may_have_been_done());
        }
        assert!(!StoreError::from(Below::Unsent(cause())).may_have_been_done());
    }

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            StoreError::Full(error().into()),
            StoreError::Unavailable(error().into()),
            StoreError::OutcomeUnknown(error().into()),
            StoreError::backend(error()),
        ] {
            let failed = Error::from(failed);
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }
}
