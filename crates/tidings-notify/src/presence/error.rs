use std::error::Error;
use std::sync::Arc;

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
        source: Arc<dyn Error + Send + Sync>,
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
            source: source.into().into(),
        }
    }
}
