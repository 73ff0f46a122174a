use std::time::Duration;

use tokio::time::Instant;

use crate::ConfigError;

/// Most retries that are saved up. It is what makes the budget one of *recent* sends.
const MOST_SAVED: f64 = 10.0;

/// What a healthy answer adds: each one may bring two retries back, so that a recovering endpoint
/// gets its backlog as fast as the ramp of its circuit breaker, and its in-flight limit, allow.
const FOR_HEALTH: f64 = 2.0;

/// How many of the requests to a failing endpoint may be retries.
///
/// Without it, an endpoint that fails gets every message many times over, on top of the new ones.
/// Every first attempt adds a share of a retry, every retry takes one, and up to ten can be saved
/// up. When nothing is left, one retry at a time still goes out each second. New messages go before
/// retries. Healthy answers lift the limit again.
///
/// The default is a share of 20 % and a trickle of one a second.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct RetryBudget {
    share: f64,
    trickle: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            share: 0.2,
            trickle: Duration::from_secs(1),
        }
    }
}

impl RetryBudget {
    /// Sets how many retries each first attempt allows: 0 to 10. The default is 0.2.
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets after how long one retry may go out although the budget is spent, ahead of new
    /// messages. More than zero, at most a day; the default is one second.
    pub fn with_trickle(mut self, trickle: Duration) -> Self {
        self.trickle = trickle;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let trickles = !self.trickle.is_zero() && self.trickle <= DAY;
        if (0.0..=10.0).contains(&self.share) && trickles {
            Ok(())
        } else {
            Err(ConfigError::new(
                "retry_budget",
                "a share of 0 to 10 and a trickle above zero and of at most a day",
            ))
        }
    }
}

/// The budget of one lane.
#[derive(Debug)]
pub(super) struct Budget {
    config: RetryBudget,
    /// How many retries may go out.
    saved: f64,
    /// When a retry went out last.
    last_retry: Option<Instant>,
}

impl Budget {
    pub(super) fn new(config: RetryBudget) -> Self {
        Self {
            config,
            saved: MOST_SAVED,
            last_retry: None,
        }
    }

    pub(super) fn config(&self) -> &RetryBudget {
        &self.config
    }

    pub(super) fn allows_retry(&self) -> bool {
        self.saved >= 1.0
    }

    /// When a retry may go out in any case. A long wait is what makes one urgent.
    pub(super) fn next_trickle(&self) -> Option<Instant> {
        self.last_retry
            .and_then(|last| last.checked_add(self.config.trickle))
    }

    pub(super) fn sent_first(&mut self) {
        self.save(self.config.share);
    }

    pub(super) fn sent_retry(&mut self, now: Instant) {
        self.saved = (self.saved - 1.0).max(0.0);
        self.last_retry = Some(now);
    }

    pub(super) fn answered(&mut self) {
        self.save(FOR_HEALTH);
    }

    fn save(&mut self, retries: f64) {
        self.saved = (self.saved + retries).min(MOST_SAVED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_sends_may_be_retries_once_the_savings_are_spent() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default());
        while budget.allows_retry() {
            budget.sent_retry(now);
        }
        let mut retries = 0;
        for _ in 0..100 {
            budget.sent_first();
            if budget.allows_retry() {
                budget.sent_retry(now);
                retries += 1;
            }
        }
        assert!((19..=20).contains(&retries), "{retries}");
    }

    #[test]
    fn no_more_than_ten_retries_are_saved_up() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default());
        for _ in 0..1000 {
            budget.sent_first();
            budget.answered();
        }
        let mut retries = 0;
        while budget.allows_retry() {
            budget.sent_retry(now);
            retries += 1;
        }
        assert_eq!(retries, 10);
    }

    #[test]
    fn the_trickle_counts_from_the_last_retry() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default());
        assert_eq!(budget.next_trickle(), None);
        budget.sent_retry(now);
        assert_eq!(budget.next_trickle(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for share in [f64::NAN, f64::INFINITY, -0.1, 10.1] {
            assert!(RetryBudget::default().with_share(share).check().is_err());
        }
        for trickle in [Duration::ZERO, Duration::MAX] {
            let budget = RetryBudget::default().with_trickle(trickle);
            assert_eq!(budget.check().unwrap_err().field(), "retry_budget");
        }
    }
}
