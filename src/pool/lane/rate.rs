use std::time::Duration;

use tokio::time::Instant;

use crate::ConfigError;

/// How far attempts may run ahead of their even distances: timers are no finer than a millisecond.
const SLACK: Duration = Duration::from_millis(10);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many requests an endpoint takes in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    attempts: u32,
    per: Duration,
}

/// When the next attempt of a lane may begin: attempts keep an even distance, so that no period,
/// wherever it begins, has more of them than the limit allows, but for what fits into the slack.
#[derive(Debug)]
pub(super) struct Rate {
    limit: RateLimit,
    /// When the next attempt would begin at an even distance.
    next: Option<Instant>,
}

impl RateLimit {
    pub(crate) fn new(attempts: u32, per: Duration) -> Self {
        Self { attempts, per }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if (1..=1_000_000).contains(&self.attempts) && !self.per.is_zero() && self.per <= DAY {
            Ok(())
        } else {
            Err(ConfigError::new(
                "rate_limit",
                "1 to 1,000,000 attempts in a time above zero and of at most a day",
            ))
        }
    }
}

impl Rate {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, next: None }
    }

    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// When an attempt may begin; `None` if it may now.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now + SLACK)
    }

    pub(super) fn began(&mut self, now: Instant) {
        let distance = self.limit.per / self.limit.attempts;
        let began = self.next.map_or(now, |next| next.max(now));
        self.next = Some(began + distance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_out_of_range_are_refused_by_name() {
        let second = Duration::from_secs(1);
        for (attempts, per) in [
            (0, second),
            (1_000_001, second),
            (1, Duration::ZERO),
            (1, DAY + Duration::from_nanos(1)),
        ] {
            let error = RateLimit::new(attempts, per).check().unwrap_err();
            assert_eq!(error.field(), "rate_limit");
        }
        assert_eq!(DAY.as_secs(), 86_400);
        for (attempts, per) in [(1, DAY), (1_000_000, Duration::from_nanos(1))] {
            RateLimit::new(attempts, per).check().unwrap();
        }
    }

    #[test]
    fn an_idle_time_saves_nothing_up() {
        let now = Instant::now();
        let mut rate = Rate::new(RateLimit::new(1, Duration::from_secs(1)));
        assert_eq!(rate.blocked_until(now), None);
        rate.began(now);
        let later = now + Duration::from_secs(100);
        rate.began(later);
        let next = Some(later + Duration::from_secs(1));
        assert_eq!(rate.blocked_until(later), next);
    }

    #[test]
    fn an_attempt_may_begin_a_little_early_and_no_earlier() {
        let now = Instant::now();
        let mut rate = Rate::new(RateLimit::new(1, Duration::from_secs(1)));
        rate.began(now);
        let next = now + Duration::from_secs(1);
        assert_eq!(rate.blocked_until(next - SLACK), None);
        let earlier = next - SLACK - Duration::from_nanos(1);
        assert_eq!(rate.blocked_until(earlier), Some(next));
    }

    proptest! {
        #[test]
        fn no_period_has_more_attempts_than_allowed(
            attempts in 1_u32..50,
            millis in 1_u64..5000,
            waits in prop::collection::vec(0_u64..200, 1..300),
        ) {
            let limit = RateLimit::new(attempts, Duration::from_millis(millis));
            let mut rate = Rate::new(limit);
            let mut now = Instant::now();
            let mut began = Vec::new();
            for wait in waits {
                now += Duration::from_millis(wait);
                match rate.blocked_until(now) {
                    None => {
                        rate.began(now);
                        began.push(now);
                    }
                    Some(at) => prop_assert!(at > now),
                }
            }
            let slack = SLACK.as_nanos() * u128::from(attempts) / limit.per.as_nanos();
            let most = attempts as usize + 1 + usize::try_from(slack).unwrap() + 1;
            for (index, first) in began.iter().enumerate() {
                let within = began[index..].iter().filter(|at| **at < *first + limit.per);
                prop_assert!(within.count() <= most);
            }
        }
    }
}
