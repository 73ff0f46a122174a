//! What the errors of the server mean for streams.

use tidings_redis::Error as ServerError;

use crate::Error;

/// A reply that the scripts of this program do not give.
#[derive(Debug, thiserror::Error)]
#[error("the server replied something unexpected")]
struct Unexpected;

/// The error of a read.
pub(super) fn unexpected() -> Error {
    Error::backend(Unexpected)
}

/// The error of a call that has changed something.
pub(super) fn unreadable() -> Error {
    Error::outcome_unknown(Unexpected)
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_redis_may_have_done_is_an_unknown_outcome() {
        let cause = || io::Error::other("away").into();
        for unknown in [
            ServerError::NoReply(cause()),
            ServerError::Unexpected(cause()),
        ] {
            assert!(Error::from(unknown).may_have_been_done());
        }
        assert!(!Error::from(ServerError::Unsent(cause())).may_have_been_done());
    }
}
