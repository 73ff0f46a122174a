use std::time::Duration;

use super::{Backoff, fraction};
use crate::ConfigError;

/// Waits that grow by a factor up to a ceiling, each drawn between zero and that: *full jitter*.
///
/// Spreading over the whole range is what clears a crowd of clients fastest
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
/// The default has ceilings of 500 ms, 1 s, 2 s … up to 60 s.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Exponential {
    base: Duration,
    factor: f64,
    max: Duration,
}

impl Exponential {
    /// Doubles from `base` up to `max`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `base` unless it is more than zero, and for `max` unless it is at least
    /// `base`.
    pub fn new(base: Duration, max: Duration) -> Result<Self, ConfigError> {
        if base.is_zero() {
            Err(ConfigError::new("base", "more than zero"))
        } else if max < base {
            Err(ConfigError::new("max", "at least `base`"))
        } else {
            Ok(Self {
                base,
                factor: 2.0,
                max,
            })
        }
    }

    /// Grows by another factor than 2.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `factor` unless it is a finite number of at least 1.
    pub fn with_factor(mut self, factor: f64) -> Result<Self, ConfigError> {
        if factor.is_finite() && factor >= 1.0 {
            self.factor = factor;
            Ok(self)
        } else {
            Err(ConfigError::new("factor", "a finite number of at least 1"))
        }
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        // Infinity and other numbers that no duration can hold mean the ceiling.
        Duration::try_from_secs_f64(self.base.as_secs_f64() * self.factor.powi(exponent))
            .map_or(self.max, |ceiling| ceiling.min(self.max))
    }
}

impl Default for Exponential {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            factor: 2.0,
            max: Duration::from_secs(60),
        }
    }
}

impl Backoff for Exponential {
    fn delay(&self, failures: u32, random: f64) -> Option<Duration> {
        Some(self.ceiling(failures).mul_f64(fraction(random)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_and_stop_at_the_maximum() {
        let backoff = Exponential::default();
        let ceilings: Vec<_> = (1..=9).map(|n| backoff.ceiling(n).as_millis()).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(ceilings, expected);
    }

    #[test]
    fn unusable_numbers_are_refused_by_name() {
        let second = Duration::from_secs(1);
        let field = |result: Result<Exponential, ConfigError>| result.unwrap_err().field();
        assert_eq!(field(Exponential::new(Duration::ZERO, second)), "base");
        assert_eq!(field(Exponential::new(second * 2, second)), "max");
        for factor in [f64::NAN, f64::INFINITY, 0.9, 0.0, -2.0] {
            let backoff = Exponential::default().with_factor(factor);
            assert_eq!(field(backoff), "factor", "{factor}");
        }
    }

    proptest! {
        #[test]
        fn delays_stay_in_bounds(
            base in 1..=u64::MAX,
            more in any::<u64>(),
            factor in 1.0..1e300,
            failures in any::<u32>(),
            random in 0.0..1.0,
        ) {
            let base = Duration::from_nanos(base);
            let max = base + Duration::from_nanos(more);
            let backoff = Exponential::new(base, max).unwrap().with_factor(factor).unwrap();
            let delay = backoff.delay(failures, random).unwrap();
            prop_assert!(delay <= max);
        }
    }
}
