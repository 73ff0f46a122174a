//! The clock of deadlines.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;

/// The wall clock as it was when this process first asked, and the time since the system was started
/// beside it. One for the whole process, so that all of its engines agree.
static BASE: LazyLock<(i64, Duration)> =
    LazyLock::new(|| (Timestamp::now().as_millisecond(), since_boot()));

/// The time by which claims and delays are counted, in milliseconds since 1970: the wall clock, but
/// unaffected when that is set.
pub(super) fn now() -> i64 {
    let (wall, since) = *BASE;
    let elapsed = since_boot().saturating_sub(since);
    wall.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// The time since the system was started, in which it may have slept: a process that is started afterwards
/// reads a wall clock that has gone on, and must agree with those from before.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// The time since this process first asked. Where the system sleeps, it may stand still.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    static FIRST: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);
    FIRST.elapsed()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NAME: &str = "engine::sqlite::clock::tests::regression_sleep_of_the_system_counts";
    const ASLEEP: &str = "TIDINGS_TEST_ASLEEP_SECONDS";

    /// In a namespace in which the system has slept for a day.
    #[cfg(target_os = "linux")]
    #[test]
    fn regression_sleep_of_the_system_counts() {
        if let Ok(asleep) = std::env::var(ASLEEP) {
            let awake = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let awake = Duration::try_from(awake).unwrap();
            let asleep = Duration::from_secs(asleep.parse().unwrap());
            assert!(since_boot() >= awake + asleep);
            return;
        }
        let child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--time", "--boottime", "86400"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(ASLEEP, "86400")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
    }

    #[test]
    fn the_clock_goes_with_the_wall_clock() {
        let wall = Timestamp::now().as_millisecond();
        assert!((now() - wall).abs() < 60_000);
    }
}
