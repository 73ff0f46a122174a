use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why a [`Database`](crate::Database) could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database was closed, or its last handle is being dropped.
    #[error("the database is closed")]
    Closed,
    /// The job panicked. Nothing of it was committed.
    #[error("a database job panicked")]
    Panicked,
    /// The path is empty, `:memory:` or a `file:` URI, which SQLite may take for a database without a
    /// file.
    #[error("expected the path of a database file, got `{}`", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// There is no database file, and none could be made.
    #[error("cannot create the database {}", path.display())]
    Create {
        /// The database file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process has the file open for itself.
    #[error("the database {} is in use by another process", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The lock file beside the database could not be opened.
    #[error("cannot open the lock file {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A thread could not be started.
    #[error("cannot start a database thread")]
    Thread(#[source] Arc<std::io::Error>),
    /// The file was written by a newer version of this program.
    #[error(
        "the schema of `{component}` is version {found}, and this program knows versions up to {known}"
    )]
    NewerSchema {
        /// Whose schema it is.
        component: &'static str,
        /// The version in the file.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// Another job of the same transaction met a full disk or a failing one, and SQLite rolled back
    /// the whole transaction. Nothing of this job was committed; it may be tried again.
    #[error("the transaction was rolled back by a failing disk")]
    RolledBack,
    /// SQLite refused. One failed commit answers every job of its transaction, so the cause is
    /// shared.
    #[error("the database failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
}

impl Error {
    /// Whether the disk, or the space that the database may take, is full.
    ///
    /// Reads go on; writes succeed again once there is room.
    pub fn is_full(&self) -> bool {
        self.code() == Some(ErrorCode::DiskFull)
    }

    /// Whether the row would have broken a `UNIQUE`, `CHECK` or foreign key constraint.
    pub fn is_constraint_violation(&self) -> bool {
        self.code() == Some(ErrorCode::ConstraintViolation)
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(source) => source.sqlite_error_code(),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(source))
    }
}
