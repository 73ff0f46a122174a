//! The end of a caller's token, on a stream that is open longer.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long before the end a stream is warned; half of what is left if that is less.
const NOTICE: Duration = Duration::from_secs(60);

/// Longer than any stream, and short enough for every clock.
const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// When a stream must be warned, and when it must end. Waits by the monotonic clock.
#[derive(Debug)]
pub(crate) struct Expiry {
    at: Timestamp,
    end: Instant,
    timer: Pin<Box<Sleep>>,
    has_warned: bool,
}

/// What is due on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The warning that the stream ends at this time.
    Warning(Timestamp),
    /// The end.
    End,
}

impl Expiry {
    pub(crate) fn new(at: Timestamp) -> Self {
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        let left = left.min(MAX);
        let now = Instant::now();
        Self {
            at,
            end: now + left,
            timer: Box::pin(sleep_until(now + left - NOTICE.min(left / 2))),
            has_warned: false,
        }
    }

    /// Waits for what is due next.
    ///
    /// Cancel safe: a dropped call has no effect.
    pub(crate) async fn due(&mut self) -> Due {
        self.timer.as_mut().await;
        if self.has_warned {
            return Due::End;
        }
        self.has_warned = true;
        self.timer.as_mut().reset(self.end);
        Due::Warning(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_warned_a_minute_before_the_end_or_at_half_of_a_short_time() {
        for (left, warned) in [(600, 540), (90, 45), (10, 5)] {
            let at = Timestamp::now() + Duration::from_secs(left);
            let mut expiry = Expiry::new(at);
            let started = Instant::now();
            // The wall clock does not stand still between two lines of a test.
            let elapsed = || (started.elapsed() + Duration::from_millis(500)).as_secs();
            assert_eq!(expiry.due().await, Due::Warning(at));
            assert_eq!(elapsed(), warned);
            assert_eq!(expiry.due().await, Due::End);
            assert_eq!(elapsed(), left);
            assert_eq!(expiry.due().await, Due::End);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_is_over_at_once_and_the_last_time_never() {
        let mut expiry = Expiry::new(Timestamp::UNIX_EPOCH);
        let started = Instant::now();
        assert_eq!(expiry.due().await, Due::Warning(Timestamp::UNIX_EPOCH));
        assert_eq!(expiry.due().await, Due::End);
        assert!(started.elapsed() < Duration::from_secs(1));
        let mut expiry = Expiry::new(Timestamp::MAX);
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        assert!(tokio::time::timeout(year, expiry.due()).await.is_err());
    }
}
