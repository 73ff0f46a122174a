use std::sync::Arc;

/// Why a broker could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker was closed.
    #[error("the broker is closed")]
    Closed,
    /// What the broker stands on failed, and nothing was done. It may be tried again.
    #[error("the broker failed")]
    Backend(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The connection broke, or stayed silent for too long, after the message was handed to it: it
    /// may have been sent or not. Who tries again may send it twice.
    #[error("the broker did not answer whether the message was sent")]
    Unanswered(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps what went wrong beneath a broker.
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(source.into().into())
    }

    /// Wraps why there was no answer after a message was handed over.
    pub fn unanswered(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unanswered(source.into().into())
    }

    /// Whether the message may have been sent even though publishing it failed.
    pub fn may_have_been_sent(&self) -> bool {
        matches!(self, Self::Unanswered(_))
    }
}

#[cfg(feature = "postgres")]
impl From<tidings_postgres::Error> for Error {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            tidings_postgres::Error::Unanswered(source) => Self::Unanswered(source),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "redis")]
impl From<tidings_redis::Error> for Error {
    fn from(error: tidings_redis::Error) -> Self {
        match error {
            tidings_redis::Error::Unanswered(source) => Self::Unanswered(source),
            other => Self::backend(other),
        }
    }
}
