use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is none that a connection can be made with.
    #[error("expected {field} to be {expected}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What is wrong with it.
        source: Cause,
    },
    /// The server said no. The connection is as good as before. Of a pipeline that is no transaction,
    /// other commands may have been done.
    #[error("the Redis server refused a command")]
    Refused(#[source] Arc<RedisError>),
    /// There is no connection: nothing was done. It may be tried again.
    #[error("the Redis server cannot be reached")]
    Unsent(#[source] Cause),
    /// The connection broke, or stayed silent for too long: what it was asked may have been done or
    /// not.
    #[error("the Redis server did not answer")]
    Unanswered(#[source] Cause),
}

impl Error {
    pub(crate) fn unsent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unsent(source.into().into())
    }

    /// Whether it may have been done even though it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::Unanswered(_))
    }

    /// Whether the server may not be written to: it is a replica, or has become one.
    pub fn is_read_only(&self) -> bool {
        self.kind() == Some(ErrorKind::Server(ServerErrorKind::ReadOnly))
    }

    /// The kind of a refusal.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(error) => Some(error.kind()),
            _ => None,
        }
    }
}

impl From<RedisError> for Error {
    /// What became of a command on a connection. Only the server's own word is a refusal; after
    /// anything else nobody knows.
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(Arc::new(error)),
            _ => Self::Unanswered(Arc::new(error)),
        }
    }
}
