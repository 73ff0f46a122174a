use tidings_reconnect::{Cause, Obstacle};
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::reason;

/// Why a call to PostgreSQL failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error("expected {field} to be {expected}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What is wrong with it, if there is more to say.
        source: Option<Cause>,
    },
    /// The server refused the statement and undid it, or its whole transaction. The connection stays
    /// usable.
    #[error("the database refused a statement")]
    Refused(#[source] Cause<tokio_postgres::Error>),
    /// There is no connection, so nothing was done. The call may be repeated.
    #[error("cannot connect to the database")]
    Unsent(#[source] Cause),
    /// The connection broke, or the server did not reply in time: the statement may have been done or
    /// not.
    #[error("the database did not reply")]
    NoReply(#[source] Cause),
    /// The connections were closed, and nothing was done.
    #[error("the connections to the database are closed")]
    Closed,
    /// The statement was done, and returned no row although it always should.
    #[error("the database returned no row")]
    NoRow,
    /// The tables were made by a newer version of this program.
    #[error(
        "the tables of `{component}` are of a newer version of Tidings (version {found}, this program knows up to \
         {known}); start that version, or put back a copy from before the upgrade"
    )]
    NewerSchema {
        /// The component that the tables belong to.
        component: &'static str,
        /// The version in the database.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
}

impl Error {
    /// The server did not reply within the limit of the caller.
    pub fn late() -> Self {
        Self::NoReply(Obstacle::Late.into())
    }

    /// The connection broke.
    pub(crate) fn broken(error: tokio_postgres::Error) -> Self {
        Self::NoReply(reason::of_silence(error))
    }

    pub(crate) fn closed_by_server() -> Self {
        Self::NoReply(Obstacle::Ended.into())
    }

    /// The outcome of a statement on a connection of the caller's own: [`Refused`](Self::Refused) or
    /// [`NoReply`](Self::NoReply).
    ///
    /// After anything worse than an error the connection is lost, and the outcome is unknown.
    pub fn of_statement(error: tokio_postgres::Error) -> Self {
        let severity = error.as_db_error().and_then(DbError::parsed_severity);
        if severity == Some(Severity::Error) {
            Self::Refused(error.into())
        } else {
            Self::broken(error)
        }
    }

    /// Whether the statement may have been done although the call failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::NoReply(_) | Self::NoRow)
    }

    /// Whether the disk of the server is full.
    pub fn is_full(&self) -> bool {
        self.code() == Some(&SqlState::DISK_FULL)
    }

    /// Whether a repeat may succeed: the server cannot be reached, did not reply, takes no writes, ended the statement
    /// because it took too long or for another transaction, or lacks memory or another resource. A
    /// [full disk](Self::is_full) is a state of its own.
    pub fn is_unavailable(&self) -> bool {
        const PASSING: [&SqlState; 2] = [&SqlState::QUERY_CANCELED, &SqlState::LOCK_NOT_AVAILABLE];
        /// Rolled back for another one, a lack of resources, errors of the server's system.
        const PASSING_CLASSES: [&str; 3] = ["40", "53", "58"];
        let is_passing = |code: &SqlState| {
            PASSING.contains(&code) || PASSING_CLASSES.iter().any(|it| code.code().starts_with(it))
        };
        matches!(self, Self::Unsent(_) | Self::NoReply(_))
            || self.is_read_only()
            || self.code().is_some_and(is_passing) && !self.is_full()
    }

    /// Whether the server takes no writes: it is a standby, or has become one behind a pooler.
    pub fn is_read_only(&self) -> bool {
        self.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// The [code](https://www.postgresql.org/docs/current/errcodes-appendix.html) of a refusal.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Refused(error) => error.code(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            Error::Invalid {
                field: "url",
                expected: "readable",
                source: Some(error().into()),
            },
            Error::Unsent(error().into()),
            Error::NoReply(error().into()),
        ] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }

    #[test]
    fn regression_a_statement_that_returned_no_row_may_have_been_done() {
        assert!(Error::NoRow.may_have_been_done());
    }

    #[test]
    fn a_refusal_can_be_downcast() {
        let wrong = "port=no".parse::<tokio_postgres::Config>().unwrap_err();
        let failed = Error::Refused(wrong.into());
        let cause = failed.source().expect("it has a cause");
        assert!(cause.is::<tokio_postgres::Error>(), "{failed:?}");
    }
}
