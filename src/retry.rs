//! When a failed delivery is tried again. Pure: time and randomness are passed in.
//!
//! A [`Backoff`] decides how long to wait after so many failures; a [`RetryPolicy`] adds the limits
//! and the endpoint's own `Retry-After`; a [`RetryBudget`] limits how many of the requests to a
//! failing endpoint are retries.
//!
//! | backoff | waits | jitter |
//! |---|---|---|
//! | [`Exponential`] | `base · factor^(n−1)`, at most `max` | the whole of it: uniform between zero and that |
//! | [`Schedule`] | a list of your own, or that of Standard Webhooks | up to a share of each wait, added |
//! | `FromBackoffCrate` | a policy of the `backoff` crate (feature `backoff`) | its own |
//!
//! ```
//! use std::time::Duration;
//! use tidings::retry::{RetryPolicy, Schedule};
//!
//! let schedule = Schedule::standard_webhooks();
//! let wait = schedule.delay(1, fastrand::f64()).unwrap();
//! assert!(wait >= Duration::from_secs(5));
//!
//! let policy = RetryPolicy::new(schedule).with_max_age(Duration::from_secs(3 * 24 * 3600));
//! # let _ = policy;
//! ```

mod budget;
mod exponential;
#[cfg(feature = "backoff")]
mod from_backoff_crate;
mod schedule;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::ConfigError;
pub(crate) use budget::Budget;
pub use budget::RetryBudget;
pub use exponential::Exponential;
#[cfg(feature = "backoff")]
pub use from_backoff_crate::FromBackoffCrate;
pub use schedule::{MAX_DELAY, Schedule};

/// Most time that is added to a wait that the endpoint asked for.
const MAX_HINT_JITTER: Duration = Duration::from_secs(30);

/// Default for `max_attempts`, so that no message is retried forever.
const DEFAULT_MAX_ATTEMPTS: u32 = 100;

/// Attempts of the default policy.
const ATTEMPTS_OF_DEFAULT: u32 = 5;

/// How long to wait after a failed attempt.
///
/// # Contract
///
/// The result depends only on the arguments, so that a delivery that was stored and loaded again
/// continues where it was. A panic ends the delivery, as `None` does.
pub trait Backoff: Debug + Send + Sync + 'static {
    /// Returns the wait after so many failed attempts, of which there is at least one; `None` to give
    /// up.
    ///
    /// `random` is a number from 0 up to but not including 1, drawn anew for each wait.
    fn delay(&self, failures: u32, random: f64) -> Option<Duration>;
}

/// Whether, and when, a failed delivery is tried again.
///
/// The default is five attempts with [`Exponential::default`]. Clones share the backoff.
#[derive(Debug, Clone)]
#[must_use]
pub struct RetryPolicy {
    backoff: Arc<dyn Backoff>,
    max_attempts: u32,
    max_age: Option<Duration>,
}

impl RetryPolicy {
    /// Retries as long as the backoff returns a delay, but makes no more than 100 attempts.
    pub fn new(backoff: impl Backoff) -> Self {
        Self {
            backoff: Arc::new(backoff),
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            max_age: None,
        }
    }

    /// Sets how many attempts are made at most, the first one included: at least 1. The default is 100.
    pub fn with_max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Gives up on a delivery whose next attempt would come later than this after its acceptance.
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// The limit on the age of a delivery.
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::new("max_attempts", "at least 1"));
        }
        Ok(())
    }

    /// How long to wait before the next attempt, or `None` to give up.
    ///
    /// `attempts` is how many were made, `age` the time since the delivery was accepted, and
    /// `not_before` what the endpoint asked for with `Retry-After`; `random` is a number from 0
    /// up to but not including 1, drawn anew for each call. The result is the larger of
    /// that and the backoff. Up to a tenth of the endpoint's wait, at most 30 seconds, is added to
    /// it, so that the deliveries that it put off do not come back all at once; nothing is ever
    /// taken from it.
    pub fn next_delay(
        &self,
        attempts: u32,
        age: Duration,
        not_before: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        if attempts >= self.max_attempts {
            return None;
        }
        let backoff = self.backoff.delay(attempts.max(1), random)?;
        let hint = not_before.map_or(Duration::ZERO, |wait| with_jitter(wait, random));
        let delay = backoff.max(hint);
        let fits = |max: Duration| age.checked_add(delay).is_some_and(|then| then <= max);
        self.max_age.is_none_or(fits).then_some(delay)
    }
}

/// A wait that the endpoint asked for, longer by up to a tenth.
pub(crate) fn with_jitter(wait: Duration, random: f64) -> Duration {
    let spread = (wait / 10).min(MAX_HINT_JITTER);
    wait.saturating_add(spread.mul_f64(fraction(random)))
}

/// The nearest number from 0 up to but not including 1; 0 for what is no number.
fn fraction(random: f64) -> f64 {
    if random.is_nan() {
        0.0
    } else {
        random.clamp(0.0, 1.0 - f64::EPSILON)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new(Exponential::default()).with_max_attempts(ATTEMPTS_OF_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Debug)]
    struct Always(Duration);

    impl Backoff for Always {
        fn delay(&self, _failures: u32, _random: f64) -> Option<Duration> {
            Some(self.0)
        }
    }

    #[test]
    fn the_last_attempt_is_not_followed_by_another() {
        let policy = RetryPolicy::default();
        let delay = |attempts| policy.next_delay(attempts, Duration::ZERO, None, 0.5);
        assert!(delay(4).is_some());
        assert_eq!(delay(5), None);
        assert_eq!(delay(u32::MAX), None);
    }

    #[test]
    fn a_policy_without_an_attempt_is_refused_by_name() {
        let policy = RetryPolicy::default().with_max_attempts(0);
        assert_eq!(policy.check().unwrap_err().field(), "max_attempts");
        assert!(policy.with_max_attempts(1).check().is_ok());
    }

    #[test]
    fn a_delivery_is_given_up_when_its_next_attempt_would_come_too_late() {
        let policy = RetryPolicy::new(Always(SECOND)).with_max_age(10 * SECOND);
        let delay = |age, hint| policy.next_delay(1, age, hint, 0.5);
        assert_eq!(delay(9 * SECOND, None), Some(SECOND));
        assert_eq!(delay(9 * SECOND + Duration::from_nanos(1), None), None);
        assert_eq!(delay(Duration::ZERO, Some(11 * SECOND)), None);
        assert_eq!(delay(Duration::MAX, None), None);
        assert_eq!(policy.max_age(), Some(10 * SECOND));
        assert_eq!(RetryPolicy::default().max_age(), None);
    }

    #[test]
    fn up_to_a_tenth_of_a_hint_is_added_and_at_most_half_a_minute() {
        for (hint, most) in [(10, 1000), (300, 30_000), (3600, 30_000)] {
            let added = |random| with_jitter(hint * SECOND, random).saturating_sub(hint * SECOND);
            assert_eq!(added(0.0), Duration::ZERO);
            assert_eq!(added(0.5).as_millis(), most / 2);
            assert!((most - 1..=most).contains(&added(0.999_999).as_millis()));
        }
    }

    #[test]
    fn any_number_is_a_random_one() {
        let policy = RetryPolicy::new(Exponential::new(SECOND, Duration::MAX).unwrap());
        for (random, least) in [
            (f64::NAN, 0),
            (f64::NEG_INFINITY, 0),
            (-0.1, 0),
            (1.0, 1 << 62),
            (f64::INFINITY, 1 << 62),
        ] {
            let delay = policy.next_delay(90, Duration::ZERO, None, random).unwrap();
            assert!(delay.as_secs() >= least, "{random}");
            assert!(least > 0 || delay.is_zero(), "{random}");
        }
    }

    proptest! {
        #[test]
        fn a_hint_is_never_undercut_and_little_is_added(
            hint in 0_u64..100_000,
            backoff in 0_u64..100_000,
            attempts in 0_u32..99,
            random in 0.0..1.0,
        ) {
            let (hint, backoff) = (Duration::from_secs(hint), Duration::from_secs(backoff));
            let policy = RetryPolicy::new(Always(backoff));
            let delay = policy.next_delay(attempts, Duration::ZERO, Some(hint), random).unwrap();
            prop_assert!(delay >= hint.max(backoff));
            prop_assert!(delay <= backoff.max(hint + (hint / 10).min(MAX_HINT_JITTER)));
        }
    }
}
