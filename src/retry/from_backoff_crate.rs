use std::fmt;
use std::time::Duration;

use backoff::backoff::Backoff as Policy;

use super::Backoff;

/// Lets a policy of the [`backoff`] crate decide the waits.
///
/// That crate is unmaintained ([RUSTSEC-2025-0012]), which is why this is behind the cargo feature
/// `backoff` and not the default.
///
/// Its policies count for themselves, and a [`Backoff`] must not; so each wait is asked of a fresh
/// policy, made by a function, that is stepped to the right place. Its `max_elapsed_time` therefore
/// never ends a delivery: use [`RetryPolicy::with_max_age`](super::RetryPolicy::with_max_age).
/// Randomness is the policy's own.
///
/// ```
/// use backoff::ExponentialBackoff;
/// use tidings::retry::{FromBackoffCrate, RetryPolicy};
///
/// let policy = RetryPolicy::new(FromBackoffCrate::new(ExponentialBackoff::default))
///     .with_max_attempts(8);
/// # let _ = policy;
/// ```
///
/// [RUSTSEC-2025-0012]: https://rustsec.org/advisories/RUSTSEC-2025-0012
pub struct FromBackoffCrate<F>(F);

impl<F, B> FromBackoffCrate<F>
where
    F: Fn() -> B + Send + Sync + 'static,
    B: Policy,
{
    /// Takes the function that makes a policy.
    pub fn new(make: F) -> Self {
        Self(make)
    }
}

impl<F, B> Backoff for FromBackoffCrate<F>
where
    F: Fn() -> B + Send + Sync + 'static,
    B: Policy,
{
    fn delay(&self, failures: u32, _random: f64) -> Option<Duration> {
        let mut policy = (self.0)();
        for _ in 1..failures {
            policy.next_backoff()?;
        }
        policy.next_backoff()
    }
}

impl<F> fmt::Debug for FromBackoffCrate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromBackoffCrate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backoff::ExponentialBackoffBuilder;
    use backoff::backoff::{Constant, Stop};

    #[test]
    fn waits_are_those_of_the_policy() {
        let backoff = FromBackoffCrate::new(|| {
            ExponentialBackoffBuilder::new()
                .with_initial_interval(Duration::from_secs(1))
                .with_multiplier(3.0)
                .with_randomization_factor(0.0)
                .build()
        });
        let delays: Vec<_> = (1..4)
            .filter_map(|failures| backoff.delay(failures, 0.5))
            .map(|delay| delay.as_secs())
            .collect();
        assert_eq!(delays, [1, 3, 9]);
    }

    #[test]
    fn a_policy_that_stops_gives_up() {
        let stop = FromBackoffCrate::new(|| Stop {});
        assert_eq!(stop.delay(1, 0.5), None);
        let constant = FromBackoffCrate::new(|| Constant::new(Duration::from_secs(2)));
        assert_eq!(constant.delay(7, 0.5), Some(Duration::from_secs(2)));
    }
}
