//! What the errors of the database mean for streams.

use crate::Error;

impl From<tidings_sqlite::Error> for Error {
    fn from(source: tidings_sqlite::Error) -> Self {
        match source {
            tidings_sqlite::Error::Closed => Self::Closed,
            full if full.is_full() => Self::Full(full.into()),
            other => Self::backend(other),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        tidings_sqlite::Error::from(source).into()
    }
}
