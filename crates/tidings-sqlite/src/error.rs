use std::path::PathBuf;

use rusqlite::ErrorCode;
use tidings_reconnect::Cause;

use crate::Fault;

/// Why a call to a [`Database`](crate::Database) failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database was closed, or its last handle is being dropped.
    #[error("the database is closed")]
    Closed,
    /// The job panicked. Nothing of it was committed.
    #[error("a database job panicked")]
    Panicked,
    /// The path leads to a folder.
    #[error("expected the path of a database file, got the folder `{}`", path.display())]
    Folder {
        /// The path that was given.
        path: PathBuf,
    },
    /// The path leads to a device, or it is empty, `:memory:` or a `file:` URI, which SQLite
    /// may take for a database without a file.
    #[error("expected the path of a database file, got `{}`", path.display())]
    NotAFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// The file has more than one name by hard links. SQLite keeps the write-ahead log and its locks beside
    /// one name, so a process that opens the file by another name does not see them, and both lose data.
    #[error(
        "the database {} has a second name (a hard link): remove that name, or copy the file",
        path.display()
    )]
    HardLink {
        /// The database file.
        path: PathBuf,
    },
    /// There is no database file, and none could be made.
    #[error("cannot create the database {}", path.display())]
    Create {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        source: Fault,
    },
    /// Another process has the file open for itself.
    #[error("the database {} is in use by another process", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The lock file beside the database could not be opened, read or written.
    #[error("cannot use the lock file {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What is wrong with it.
        source: Fault,
    },
    /// A thread could not be started.
    #[error("cannot start a database thread")]
    Thread(#[source] Cause<std::io::Error>),
    /// The file is something else than a SQLite database.
    #[error("the file {} is not a SQLite database", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is the database of another program.
    #[error("the file {} is a database of another program", path.display())]
    OtherProgram {
        /// The database file.
        path: PathBuf,
    },
    /// The database file, or its write-ahead log, was removed, replaced or truncated while it was open.
    /// What was written since would be lost: nothing is written any more.
    #[error("the database file {} was removed, replaced or truncated while it was open", path.display())]
    FileChanged {
        /// The database file.
        path: PathBuf,
    },
    /// Another process has held the write lock for too long. Nothing was done; the call may be repeated.
    #[error("the database is locked by another process")]
    Busy(#[source] Cause<rusqlite::Error>),
    /// A [`list`](crate::Database::list) took longer than it may.
    #[error("the query took too long")]
    TooSlow,
    /// The disk, or the space that the database may take, is full. Nothing was done. Reads continue; writes
    /// succeed again once there is room.
    #[error("the disk of the database is full")]
    Full(#[source] Cause<rusqlite::Error>),
    /// The file was written by a newer version of this program.
    #[error(
        "the tables of `{component}` are of a newer version of Tidings (version {found}, this program knows up to \
         {known}); start that version, or put back a copy from before the upgrade"
    )]
    NewerSchema {
        /// The component that the schema belongs to.
        component: &'static str,
        /// The version in the file.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// Another job of the same transaction met a full disk or a failing one, and SQLite rolled back
    /// the whole transaction. Nothing of this job was committed; the call may be repeated.
    #[error("the transaction was rolled back by a failing disk")]
    RolledBack,
    /// The file cannot be used as it is, or not at the moment.
    #[error("the database file cannot be used")]
    Unusable(#[source] Fault),
    /// SQLite failed. One failed commit is the result of every job of its transaction, so the cause is
    /// shared.
    #[error("the database failed")]
    Sqlite(#[source] Cause<rusqlite::Error>),
}

impl Error {
    /// Whether the disk, or the space that the database may take, is full.
    ///
    /// Reads continue; writes succeed again once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether another process has held the write lock for too long.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// Whether the call failed by local trouble that is not the caller's, and may succeed later: the file is
    /// locked, its disk full or failing, memory or file descriptors are exhausted, the file has changed, or a
    /// list took too long. Nothing was committed.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Busy(_)
            | Self::Full(_)
            | Self::RolledBack
            | Self::TooSlow
            | Self::FileChanged { .. } => true,
            Self::Unusable(fault) => fault.may_pass(),
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        let code = source.sqlite_error_code();
        if let Some(fault) = code.and_then(Fault::of_sqlite) {
            return Self::Unusable(fault);
        }
        let source = source.into();
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(source),
            Some(ErrorCode::DiskFull) => Self::Full(source),
            _ => Self::Sqlite(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_cause_can_be_downcast() {
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_ERROR] {
            let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let failed = Error::from(failure);
            let cause = failed.source().expect("it has a cause");
            let found = cause.downcast_ref::<rusqlite::Error>();
            assert!(found.is_some(), "{failed:?}");
        }
        let failed = Error::Thread(io::Error::other("no threads").into());
        let cause = failed.source().expect("it has a cause");
        assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
    }
}
