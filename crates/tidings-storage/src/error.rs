use std::error::Error as StdError;

use tidings_reconnect::Cause;

/// Why the storage could not do what was asked. Nothing of a failed call is stored, unless the
/// variant says otherwise. Exhaustive, so that a server replies to each kind in its own way.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The storage was closed: the server stops.
    #[error("the storage is closed")]
    Closed,
    /// The disk is full. Reads continue; writes succeed again when there is room.
    #[error("the disk of the database is full")]
    Full {
        /// What the database reported.
        #[source]
        source: Cause,
    },
    /// The database is locked, unreachable or too slow. A repeat may succeed.
    #[error("the database is not available")]
    Unavailable {
        /// What the database reported.
        #[source]
        source: Cause,
    },
    /// Another transaction holds the log of one of the users, or the idempotency key. A repeat may succeed.
    #[error("another transaction holds the log of one of the users, or the idempotency key")]
    Locked,
    /// The database did not confirm the commit, and does not say what became of it: the call had its
    /// whole effect or none.
    #[error("the database did not confirm the commit, which may have been made or not")]
    OutcomeUnknown {
        /// What the database reported.
        #[source]
        source: Cause,
    },
    /// A list took longer than it may. Nothing is wrong with the database.
    #[error("the list took too long")]
    TooSlow,
    /// The database failed.
    #[error("the database failed")]
    Failed {
        /// What the database reported.
        #[source]
        source: Cause,
    },
}

impl StorageError {
    /// The error as one of a small set of words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Full { .. } => "full",
            Self::Unavailable { .. } => "unavailable",
            Self::Locked => "locked",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::TooSlow => "too_slow",
            Self::Failed { .. } => "failed",
        }
    }

    /// The database failed, or what stands between it and the caller.
    pub fn failed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Failed {
            source: Cause::new(source),
        }
    }

    /// The database is not available.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable {
            source: Cause::new(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            StorageError::Full {
                source: error().into(),
            },
            StorageError::unavailable(error()),
            StorageError::OutcomeUnknown {
                source: error().into(),
            },
            StorageError::failed(error()),
        ] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }
}
