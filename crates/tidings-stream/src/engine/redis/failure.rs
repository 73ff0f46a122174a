//! What the errors of the server mean for streams.

use std::sync::Arc;

use tidings_redis::Error as ServerError;

use crate::Error;

/// A reply that the scripts of this program do not give.
#[derive(Debug, thiserror::Error)]
#[error("the server replied something unexpected")]
struct Unexpected;

pub(super) fn unexpected() -> Error {
    Error::backend(Unexpected)
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        match &error {
            ServerError::Refused(refusal) if refusal.code() == Some("OOM") => {
                Self::Full(Arc::new(error))
            }
            ServerError::NoReply(_) => Self::outcome_unknown(error),
            _ => Self::backend(error),
        }
    }
}
