//! What the errors of the server mean for streams.

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
        match error {
            full if full.is_full() => Self::Full(full.into()),
            unknown if unknown.may_have_been_done() => Self::outcome_unknown(unknown),
            other => Self::backend(other),
        }
    }
}
