//! What is not as it should be.

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::FromSql;

use crate::presence::PresenceError;

/// A result that the functions of this program do not return.
#[derive(Debug, thiserror::Error)]
#[error("the database returned something unexpected")]
struct Unexpected;

pub(super) fn unexpected() -> PresenceError {
    PresenceError::backend(Unexpected)
}

/// A column as what it should be.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, PresenceError> {
    row.try_get(at).map_err(PresenceError::backend)
}
