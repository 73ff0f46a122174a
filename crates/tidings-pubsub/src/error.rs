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
    /// A setting is none that the broker can work with.
    #[error("expected {field} to be {expected}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What is wrong with it.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
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
