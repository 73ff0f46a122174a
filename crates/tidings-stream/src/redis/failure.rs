//! What the errors of the server mean for streams.

use std::sync::Arc;
use std::time::Duration;

use tidings_redis::Error as ServerError;

use crate::Error;

/// An answer that the scripts of this program do not give.
#[derive(Debug, thiserror::Error)]
#[error("the server answered something unexpected")]
struct Unexpected;

pub(super) fn unexpected() -> Error {
    Error::backend(Unexpected)
}

pub(super) fn error(error: ServerError) -> Error {
    match &error {
        ServerError::Refused(refusal) if refusal.code() == Some("OOM") => {
            Error::Full(Arc::new(error))
        }
        _ => Error::backend(error),
    }
}

/// The longest time that is counted, in milliseconds: numbers of the scripts are exact to 2^53.
const FAR: u64 = 1 << 52;

/// A duration as the scripts count it: in milliseconds, rounded up.
pub(super) fn millis(duration: Duration) -> u64 {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(whole).map_or(FAR, |millis| millis.min(FAR))
}
