use std::error::Error as StdError;

/// Why a call to a [`Store`](crate::Store) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed.
    #[error("the notification store is closed")]
    Closed,
    /// The disk is full. Reads continue; writes succeed again once there is room.
    #[error("the notification store is full")]
    Full {
        /// The backend's error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store cannot be used for the moment: another process holds the lock of its file, or a failure of
    /// another call rolled this one back, or its server cannot be reached. The call may be repeated;
    /// if only the reply of a server was lost, then the first call may have taken effect.
    #[error("the notification store is not available")]
    Unavailable {
        /// The backend's error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Another transaction has held the log of one of the users for too long. Nothing was done. The call may be repeated.
    #[error("another transaction holds the log of one of the users")]
    Locked,
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
    Backend {
        /// The backend's error.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl StoreError {
    /// Wraps the failure of a backend.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Backend {
            source: source.into(),
        }
    }
}

#[cfg(feature = "postgres")]
impl From<tidings_postgres::Error> for StoreError {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            tidings_postgres::Error::Closed => Self::Closed,
            full if full.is_full() => Self::Full {
                source: full.into(),
            },
            unavailable if unavailable.is_unavailable() => Self::Unavailable {
                source: unavailable.into(),
            },
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "redis")]
impl From<tidings_redis::Error> for StoreError {
    fn from(error: tidings_redis::Error) -> Self {
        match error {
            full if full.is_full() => Self::Full {
                source: full.into(),
            },
            unavailable if unavailable.is_unavailable() => Self::Unavailable {
                source: unavailable.into(),
            },
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<tidings_sqlite::Error> for StoreError {
    fn from(error: tidings_sqlite::Error) -> Self {
        match error {
            tidings_sqlite::Error::Closed => Self::Closed,
            full if full.is_full() => Self::Full {
                source: full.into(),
            },
            unavailable if unavailable.is_unavailable() => Self::Unavailable {
                source: unavailable.into(),
            },
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The notifier was closed.
    #[error("the notifier is closed")]
    Closed,
    /// The user is offline and the notifier is configured to skip such users: nothing was stored.
    #[error("the user is offline, and notifications for offline users are skipped")]
    Offline,
    /// The store failed. Nothing was delivered that is not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The stream has ended, because it, its notifier or its store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the notification stream is closed")]
pub struct Closed;
