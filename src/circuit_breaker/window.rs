use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How many parts a window is cut into; old attempts are forgotten a part at a time.
const PARTS: u32 = 10;

/// Counts attempts and failures of the recent past.
#[derive(Debug)]
pub(super) struct Window {
    part: Duration,
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: Instant,
    attempts: u32,
    failures: u32,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            part: (length / PARTS).max(Duration::from_nanos(1)),
            parts: VecDeque::new(),
        }
    }

    pub(super) fn record(&mut self, failed: bool, now: Instant) {
        let age = |part: &Part| now.saturating_duration_since(part.began);
        let length = self.part * PARTS;
        while self.parts.front().is_some_and(|part| age(part) >= length) {
            self.parts.pop_front();
        }
        if self.parts.back().is_none_or(|part| age(part) >= self.part) {
            self.parts.push_back(Part {
                began: now,
                attempts: 0,
                failures: 0,
            });
        }
        if let Some(part) = self.parts.back_mut() {
            part.attempts = part.attempts.saturating_add(1);
            part.failures = part.failures.saturating_add(u32::from(failed));
        }
    }

    /// Whether there were enough attempts and too many of them failed.
    pub(super) fn exceeds(&self, rate: f64, min_attempts: u32) -> bool {
        let (attempts, failures) = self.parts.iter().fold((0_u64, 0_u64), |(all, bad), part| {
            (
                all + u64::from(part.attempts),
                bad + u64::from(part.failures),
            )
        });
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of a window are far below 2^52"
        )]
        let share = failures as f64 / attempts.max(1) as f64;
        attempts >= u64::from(min_attempts) && share >= rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A window of ten seconds with one failure at each of these times.
    fn window(start: Instant, seconds: &[u32]) -> Window {
        let mut window = Window::new(10 * SECOND);
        for second in seconds {
            window.record(true, start + *second * SECOND);
        }
        window
    }

    #[test]
    fn an_attempt_counts_for_as_long_as_the_window_is() {
        let start = Instant::now();
        assert!(window(start, &[0, 5, 9]).exceeds(1.0, 3));
        assert!(!window(start, &[0, 5, 10]).exceeds(1.0, 3));
        // The one at nine seconds is in a part of its own.
        assert!(window(start, &[0, 9, 10]).exceeds(1.0, 2));
        // One a second: ten parts, and the first one falls out of the window.
        let seconds: Vec<u32> = (0..11).collect();
        assert!(window(start, &seconds).exceeds(1.0, 10));
        assert!(!window(start, &seconds).exceeds(1.0, 11));
    }

    #[test]
    fn the_rate_is_the_share_of_failures_among_all_attempts() {
        let now = Instant::now();
        let mut window = window(now, &[0]);
        for _ in 0..3 {
            window.record(false, now);
        }
        assert!(window.exceeds(0.25, 4));
        assert!(!window.exceeds(0.26, 4));
        assert!(!window.exceeds(0.25, 5));
    }
}
