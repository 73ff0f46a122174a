//! How values become columns, on every database.

use std::time::Duration;

use jiff::Timestamp;
use tidings_notify::UserId;

use crate::{Owner, StoreError};

/// A time as a column has it.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time in a column.
pub(crate) fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(StoreError::backend)
}

/// The time in a column that may have none.
pub(crate) fn optional_time(microseconds: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    microseconds.map(time).transpose()
}

/// A duration as a column has it.
pub(crate) fn duration_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// For how long a circuit opens next, as a column has it: 0 if it is closed.
pub(crate) fn open_for_micros(next_open_for: Option<Duration>) -> i64 {
    next_open_for.map_or(0, duration_micros)
}

/// For how long a circuit opens next, in a column.
pub(crate) fn open_for(microseconds: i64) -> Option<Duration> {
    let is_closed = microseconds <= 0;
    (!is_closed).then(|| Duration::from_micros(microseconds.unsigned_abs()))
}

/// A number of rows as a limit.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The owner in a column that has no user for the operator.
pub(crate) fn owner(user: Option<String>) -> Result<Owner, StoreError> {
    match user {
        None => Ok(Owner::Operator),
        Some(user) => Ok(Owner::User(UserId::new(user).map_err(StoreError::backend)?)),
    }
}

/// The wait in a column that may have none.
pub(crate) fn first_wait(microseconds: Option<i64>) -> Option<Duration> {
    microseconds.map(|it| Duration::from_micros(it.unsigned_abs()))
}
