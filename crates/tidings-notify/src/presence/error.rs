use std::error::Error;

use tidings_reconnect::Cause;

/// Why a call to a [`Presence`](super::Presence) or a [`Tracker`](super::Tracker) failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The user is offline.
    #[error("the user is not online")]
    NotFound,
    /// The store or the tracker was closed.
    #[error("presence is closed")]
    Closed,
    /// An option is not within its range.
    #[error("expected {field} to be {expected}")]
    InvalidOption {
        /// The option.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The backend failed.
    #[error("the presence store failed")]
    Backend {
        /// The backend's error.
        #[source]
        source: Cause,
    },
}

#[cfg(feature = "redis")]
impl From<tidings_redis::Error> for PresenceError {
    fn from(error: tidings_redis::Error) -> Self {
        Self::backend(error)
    }
}

impl PresenceError {
    /// Wraps the failure of a backend.
    pub fn backend(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Backend {
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
        let failed = PresenceError::backend(io::Error::other("away"));
        let cause = failed.source().expect("it has a cause");
        assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
    }
}
