use std::sync::Arc;

use tokio_postgres::error::{DbError, Severity, SqlState};

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why PostgreSQL did not do what it was asked.
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
    /// The server said no, and undid the statement or its transaction. The connection is as good as
    /// before.
    #[error("the database refused a statement")]
    Refused(#[source] Arc<tokio_postgres::Error>),
    /// There is no connection: nothing was done. It may be tried again.
    #[error("the database cannot be reached")]
    Unsent(#[source] Cause),
    /// The connection broke, or stayed silent for too long: what it was asked may have been done or
    /// not.
    #[error("the database did not answer")]
    Unanswered(#[source] Cause),
    /// The tables were made by a newer version of this program.
    #[error(
        "the schema of `{component}` is version {found}, and this program knows versions up to {known}"
    )]
    NewerSchema {
        /// Whose tables they are.
        component: &'static str,
        /// The version in the database.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
}

impl Error {
    pub(crate) fn unsent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unsent(source.into().into())
    }

    pub(crate) fn unanswered(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unanswered(source.into().into())
    }

    /// What became of a statement on a connection.
    ///
    /// After anything worse than an error the connection is lost, and with it the word on what
    /// became of the statement.
    pub(crate) fn of_statement(error: tokio_postgres::Error) -> Self {
        let severity = error.as_db_error().and_then(DbError::parsed_severity);
        if severity == Some(Severity::Error) {
            Self::Refused(Arc::new(error))
        } else {
            Self::unanswered(error)
        }
    }

    /// Whether it may have been done even though it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::Unanswered(_))
    }

    /// The [code](https://www.postgresql.org/docs/current/errcodes-appendix.html) of a refusal.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Refused(error) => error.code(),
            _ => None,
        }
    }
}
