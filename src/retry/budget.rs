use std::time::Duration;

use tokio::time::Instant;

use crate::ConfigError;

/// Most retries that are saved. The limit makes the budget one of *recent* sends.
const MAX_CREDIT: f64 = 10.0;

/// Credit that a healthy response adds: each allows two more retries, so that a recovering endpoint
/// gets its backlog as fast as the ramp of its circuit breaker, and its in-flight limit, allow.
const FOR_HEALTH: f64 = 2.0;

/// How many of the requests to a failing endpoint may be retries.
///
/// Without a budget, an endpoint that fails gets every message several times, in addition to the new
/// ones. Each first attempt adds a share of a retry, each retry takes one, and up to ten can be
/// saved. As long as there is credit, the older message goes first, retry or not. Without credit,
/// new messages go first, and one retry goes out each second anyway, so that no retry waits
/// without limit. Healthy responses lift the limit again.
///
/// The default is a share of 20 % and a trickle of one retry a second.
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

    /// Sets after how long one retry goes out although there is no credit, ahead of new messages.
    /// More than zero, at most a day; the default is one second.
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

/// The account of one lane's budget.
#[derive(Debug)]
pub(crate) struct Budget {
    config: RetryBudget,
    /// How many retries may go out.
    credit: f64,
    last_retry: Option<Instant>,
}

impl Budget {
    pub(crate) fn new(config: RetryBudget) -> Self {
        Self {
            config,
            credit: MAX_CREDIT,
            last_retry: None,
        }
    }

    pub(crate) fn config(&self) -> &RetryBudget {
        &self.config
    }

    /// Whether the budget allows another retry.
    pub(crate) fn has_credit(&self) -> bool {
        self.credit >= 1.0
    }

    /// When a retry that has been due since some time goes out even without credit.
    pub(crate) fn trickle_at(&self, due_since: Instant) -> Option<Instant> {
        let since = self
            .last_retry
            .map_or(due_since, |last| last.max(due_since));
        since.checked_add(self.config.trickle)
    }

    pub(crate) fn sent_first(&mut self) {
        self.add(self.config.share);
    }

    pub(crate) fn sent_retry(&mut self, now: Instant) {
        self.credit = (self.credit - 1.0).max(0.0);
        self.last_retry = Some(now);
    }

    pub(crate) fn got_healthy_response(&mut self) {
        self.add(FOR_HEALTH);
    }

    fn add(&mut self, retries: f64) {
        self.credit = (self.credit + retries).min(MAX_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_sends_may_be_retries_once_the_credit_is_spent() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default());
        while budget.has_credit() {
            budget.sent_retry(now);
        }
        let mut retries = 0;
        for _ in 0..100 {
            budget.sent_first();
            if budget.has_credit() {
                budget.sent_retry(now);
                retries += 1;
            }
        }
        assert!((19..=20).contains(&retries), "{retries}");
    }

    #[test]
    fn no_more_than_ten_retries_are_saved() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default());
        for _ in 0..1000 {
            budget.sent_first();
            budget.got_healthy_response();
        }
        let mut retries = 0;
        while budget.has_credit() {
            budget.sent_retry(now);
            retries += 1;
        }
        assert_eq!(retries, 10);
    }

    #[test]
    fn the_trickle_counts_from_the_last_retry_or_from_when_the_next_one_was_due() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(RetryBudget::default());
        assert_eq!(budget.trickle_at(now), Some(now + second));
        budget.sent_retry(now + second);
        assert_eq!(budget.trickle_at(now), Some(now + 2 * second));
        let later = now + 10 * second;
        assert_eq!(budget.trickle_at(later), Some(later + second));
    }

    #[test]
    fn shares_and_trickles_out_of_range_are_refused() {
        for share in [f64::NAN, f64::INFINITY, -0.1, 10.1] {
            assert!(RetryBudget::default().with_share(share).check().is_err());
        }
        for trickle in [Duration::ZERO, Duration::MAX] {
            let budget = RetryBudget::default().with_trickle(trickle);
            assert_eq!(budget.check().unwrap_err().field(), "retry_budget");
        }
    }

    #[test]
    fn healthy_responses_bring_credit_back() {
        let now = Instant::now();
        let mut budget = Budget::new(RetryBudget::default().with_share(0.0));
        while budget.has_credit() {
            budget.sent_retry(now);
        }
        budget.got_healthy_response();
        for _ in 0..2 {
            assert!(budget.has_credit());
            budget.sent_retry(now);
        }
        assert!(!budget.has_credit());
    }
}
