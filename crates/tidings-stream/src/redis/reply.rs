//! Reading answers.

use tidings_redis::redis::{FromRedisValue, Value, from_redis_value};

use super::failure;
use crate::Error;

/// An answer as what it is expected to be.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, Error> {
    from_redis_value(value).map_err(Error::backend)
}

/// The parts of a list.
pub(super) fn list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(failure::unexpected()),
    }
}

/// An answer with a character for each question, `1` for yes.
pub(super) fn flags(value: Value, count: usize) -> Result<Vec<bool>, Error> {
    match value {
        Value::BulkString(flags) if flags.len() == count => {
            Ok(flags.into_iter().map(|flag| flag == b'1').collect())
        }
        _ => Err(failure::unexpected()),
    }
}
