//! What the errors of the database mean for streams.

use tidings_postgres::tokio_postgres::error::SqlState;

use crate::Error;
use crate::engine::group_commit::AppendError;

/// The error of a statement on a connection of the caller's. Its code is among its sources, as with any
/// other connection.
pub(super) fn statement(error: tidings_postgres::tokio_postgres::Error) -> Error {
    let error = tidings_postgres::Error::of_statement(error);
    if error.is_full() {
        Error::Full(error.into())
    } else {
        Error::backend(error)
    }
}

impl From<tidings_postgres::Error> for Error {
    fn from(error: tidings_postgres::Error) -> Self {
        if matches!(error, tidings_postgres::Error::Closed) {
            Self::Closed
        } else if error.may_have_been_done() {
            Self::outcome_unknown(error)
        } else if error.is_full() {
            Self::Full(error.into())
        } else {
            Self::backend(error)
        }
    }
}

/// Whether the reason of an error is that the database is away for a while.
pub(super) fn is_outage(error: &Error) -> bool {
    let (Error::Backend(source) | Error::OutcomeUnknown(source)) = error else {
        return false;
    };
    let database: Option<&tidings_postgres::Error> = source.downcast_ref();
    database.is_some_and(tidings_postgres::Error::is_unavailable)
}

/// Whether some message may be the reason why a batch failed. The first two characters of a code are
/// its class.
pub(super) fn append_error(failed: tidings_postgres::Error) -> AppendError {
    /// Data that cannot be, a constraint, a transaction that was in another's way, a limit of the
    /// program.
    const CLASSES: [&str; 4] = ["22", "23", "40", "54"];
    let code = failed.code();
    let is_about_content = code.is_some_and(|code| {
        CLASSES.iter().any(|class| code.code().starts_with(class))
            || *code == SqlState::OUT_OF_MEMORY
    });
    if is_about_content {
        AppendError::Refused(failed.into())
    } else {
        AppendError::Failed(failed.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_postgres_may_have_done_is_an_unknown_outcome() {
        use tidings_postgres::Error as Below;
        for unknown in [Below::late(), Below::NoRow] {
            let appended = Error::from(append_error(unknown.clone()));
            assert!(appended.may_have_been_done());
            assert!(Error::from(unknown).may_have_been_done());
        }
        let unsent = Below::Unsent(io::Error::other("away").into());
        assert!(!Error::from(unsent).may_have_been_done());
    }
}
