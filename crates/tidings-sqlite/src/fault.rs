use std::io::{self, ErrorKind};
use std::sync::Arc;

use rusqlite::ErrorCode;

/// What keeps the database file from being used, in words for the person who can change it.
///
/// It stands in place of the errors of the operating system and of SQLite, whose texts are written for
/// programmers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A folder of the path does not exist.
    #[error("its folder does not exist")]
    NoFolder,
    /// A part of the path that must be a folder is something else.
    #[error("a part of its path is not a folder")]
    NotAFolder,
    /// The path is longer than the file system allows.
    #[error("its name is too long, or has characters that the file system does not allow")]
    Name,
    /// The symbolic links of the path lead in a circle, or one after the other too often.
    #[error("its path has too many symbolic links")]
    Links,
    /// The rights of the file, the files beside it or the folder are not enough.
    #[error("this user may not read and write it, or may not make files in its folder")]
    Forbidden,
    /// SQLite cannot open the file or one of those beside it, and does not report why.
    #[error(
        "it or its log cannot be opened: this user may not read and write both, or too many files are open"
    )]
    CannotOpen,
    /// The file, its folder or the file system takes no writes.
    #[error("it is read-only for this user, or on a file system that is")]
    ReadOnly,
    /// The process or the whole system has as many open files as it may have.
    #[error("too many files are open")]
    TooManyFiles,
    /// The disk is full, or the user's share of it.
    #[error("the disk is full")]
    NoSpace,
    /// Reading or writing failed.
    #[error("its disk failed to read or write")]
    Disk,
    /// The content of the file makes no sense to SQLite.
    #[error("it is damaged, and must be replaced by a backup or recovered")]
    Damaged,
    /// The file is something else than a SQLite database, or encrypted.
    #[error("it is not a SQLite database")]
    NotADatabase,
    /// Memory is exhausted.
    #[error("there is not enough memory")]
    NoMemory,
    /// Something else that the operating system reported.
    #[error(transparent)]
    Other(Arc<io::Error>),
}

impl Fault {
    /// The fault that SQLite reports by a code, if it is one of the file.
    pub(crate) fn of_sqlite(code: ErrorCode) -> Option<Self> {
        Some(match code {
            ErrorCode::CannotOpen => Self::CannotOpen,
            ErrorCode::PermissionDenied => Self::Forbidden,
            ErrorCode::ReadOnly => Self::ReadOnly,
            ErrorCode::SystemIoFailure => Self::Disk,
            ErrorCode::DatabaseCorrupt => Self::Damaged,
            ErrorCode::NotADatabase => Self::NotADatabase,
            ErrorCode::OutOfMemory => Self::NoMemory,
            _ => return None,
        })
    }

    /// Whether the call may succeed later although the file stays the same.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::CannotOpen
                | Self::ReadOnly
                | Self::TooManyFiles
                | Self::NoSpace
                | Self::Disk
                | Self::NoMemory
        )
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NoFolder,
            ErrorKind::NotADirectory => Self::NotAFolder,
            ErrorKind::InvalidFilename => Self::Name,
            ErrorKind::PermissionDenied => Self::Forbidden,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace,
            ErrorKind::OutOfMemory => Self::NoMemory,
            _ if is_too_many_files(&error) => Self::TooManyFiles,
            _ if is_loop(&error) => Self::Links,
            _ => Self::Other(Arc::new(error)),
        }
    }
}

/// `ENFILE` and `EMFILE`, which the standard library has no kind for.
fn is_too_many_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// `ELOOP`, likewise.
fn is_loop(error: &io::Error) -> bool {
    cfg!(target_os = "linux") && error.raw_os_error() == Some(40)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;
    use crate::Error;

    #[test]
    fn errors_of_sqlite_about_the_file_have_words_of_their_own() {
        for (code, says, may_pass) in [
            (ffi::SQLITE_CANTOPEN, "cannot be opened", true),
            (ffi::SQLITE_PERM, "this user may not", false),
            (ffi::SQLITE_READONLY, "is read-only", true),
            (ffi::SQLITE_IOERR_FSYNC, "its disk failed", true),
            (ffi::SQLITE_CORRUPT, "is damaged", false),
            (ffi::SQLITE_NOTADB, "is not a SQLite database", false),
            (ffi::SQLITE_NOMEM, "not enough memory", true),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("text".into()));
            let error = Error::from(error);
            let Error::Unusable(fault) = &error else {
                panic!("{code}: {error:?}");
            };
            assert!(fault.to_string().contains(says), "{code}: {fault}");
            assert_eq!(error.is_unavailable(), may_pass, "{code}");
            assert!(std::error::Error::source(fault).is_none());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn errors_of_the_system_have_words_of_their_own() {
        for (number, says) in [
            (2, "its folder does not exist"),
            (13, "this user may not"),
            (20, "is not a folder"),
            (23, "too many files"),
            (24, "too many files"),
            (28, "the disk is full"),
            (30, "is read-only"),
            (36, "name is too long"),
            (40, "symbolic links"),
            (122, "the disk is full"),
        ] {
            let fault = Fault::from(io::Error::from_raw_os_error(number));
            assert!(fault.to_string().contains(says), "{number}: {fault}");
            assert!(!fault.to_string().contains("os error"), "{number}: {fault}");
        }
    }
}
