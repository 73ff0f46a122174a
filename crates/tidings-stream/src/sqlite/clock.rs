//! The clock of deadlines.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock as it was when this process first asked, and the monotonic clock beside it. One
/// for the whole process, so that all of its engines agree.
static BASE: LazyLock<(i64, Instant)> =
    LazyLock::new(|| (Timestamp::now().as_millisecond(), Instant::now()));

/// The time by which claims and delays are counted, in milliseconds since 1970: the wall clock, but
/// deaf to whoever sets it.
pub(super) fn now() -> i64 {
    let (wall, since) = *BASE;
    wall.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
}

/// A duration as the clock counts it, rounded up.
pub(super) fn millis(duration: Duration) -> i64 {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// How long until a time of this clock; zero when it has passed.
pub(super) fn until(time: i64, now: i64) -> Duration {
    Duration::from_millis(u64::try_from(time.saturating_sub(now)).unwrap_or(0))
}
