//! Times as databases count them: whole milliseconds.

use std::time::Duration;

use jiff::Timestamp;

/// The longest duration that is counted, in milliseconds: exact as a number of a Lua script, and
/// short enough to be added to any time.
const LONGEST: u64 = 1 << 52;

/// A duration in milliseconds, rounded up.
pub(crate) fn millis(duration: Duration) -> i64 {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(whole)
        .map_or(LONGEST, |millis| millis.min(LONGEST))
        .cast_signed()
}

/// A number of milliseconds as a duration; zero if it is negative.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The first whole millisecond that is not before a time. A message of the millisecond that the time
/// lies in was appended before it.
pub(super) fn first_milli(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    let millis = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0);
    i64::try_from(millis).unwrap_or(i64::MAX)
}
