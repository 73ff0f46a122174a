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

pub(super) fn error(error: ServerError) -> Error {
    match &error {
        ServerError::Refused(refusal) if refusal.code() == Some("OOM") => {
            Error::Full(Arc::new(error))
        }
        ServerError::NoReply(_) => Error::outcome_unknown(error),
        _ => Error::backend(error),
    }
}
