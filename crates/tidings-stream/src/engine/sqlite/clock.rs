//! The clock of deadlines.

use std::sync::LazyLock;

use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock as it was when this process first asked, and the monotonic clock beside it. One
/// for the whole process, so that all of its engines agree.
static BASE: LazyLock<(i64, Instant)> =
    LazyLock::new(|| (Timestamp::now().as_millisecond(), Instant::now()));

/// The time by which claims and delays are counted, in milliseconds since 1970: the wall clock, but
/// unaffected when that is set.
pub(super) fn now() -> i64 {
    let (wall, since) = *BASE;
    wall.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
}
