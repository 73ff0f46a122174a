use std::sync::Arc;

/// Why a broker could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker was closed.
    #[error("the broker is closed")]
    Closed,
    /// What the broker stands on failed. It may be tried again.
    #[error("the broker failed")]
    Backend(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps what went wrong beneath a broker.
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(source.into().into())
    }
}
