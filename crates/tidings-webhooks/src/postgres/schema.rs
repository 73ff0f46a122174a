//! The tables, the functions that change them, and how values become columns.

use std::time::Duration;

use jiff::Timestamp;
use tidings_postgres::tokio_postgres;

use crate::StoreError;

/// Whose tables these are, in the database's list of schemas.
pub(super) const COMPONENT: &str = "tidings_webhooks";

/// What made the tables; a released step never changes.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/1_tables.sql"),
    include_str!("schema/2_functions.sql"),
    include_str!("schema/3_deferred.sql"),
];

/// A column that is not what it should be.
pub(super) fn column(error: tokio_postgres::Error) -> StoreError {
    StoreError::backend(error)
}

/// A time as a column has it.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time in a column.
pub(super) fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(StoreError::backend)
}

/// The time in a column that may have none.
pub(super) fn optional_time(microseconds: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    microseconds.map(time).transpose()
}

/// A duration as a column has it.
pub(super) fn duration_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A number of rows as a limit.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A count as a column has it.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
