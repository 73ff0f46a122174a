use std::sync::Arc;
use std::time::Duration;

use super::{Backoff, fraction};
use crate::ConfigError;

/// A list of waits: the first after the first attempt, and so on; after the last, give up.
///
/// There is one attempt more than there are waits. Jitter is only ever added: each wait is longer
/// by up to a share of itself, a fifth by default.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Schedule {
    delays: Arc<[Duration]>,
    jitter: f64,
}

impl Schedule {
    /// Waits by a list of your own. An empty one means a single attempt.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `delays` when there are more than 100, or one is longer than 30 days.
    pub fn new(delays: impl IntoIterator<Item = Duration>) -> Result<Self, ConfigError> {
        let delays: Vec<Duration> = delays.into_iter().take(MAX_DELAYS + 1).collect();
        if delays.len() > MAX_DELAYS || delays.iter().any(|delay| *delay > MAX_DELAY) {
            return Err(ConfigError::new(
                "delays",
                "at most 100, of at most 30 days each",
            ));
        }
        Ok(Self {
            delays: delays.into(),
            jitter: DEFAULT_JITTER,
        })
    }

    /// The schedule that Standard Webhooks gives as its example: at once, then after 5 s, 5 min,
    /// 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h: ten attempts over three days and three and a
    /// half hours.
    pub fn standard_webhooks() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [
            5,
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        Self {
            delays: seconds.map(Duration::from_secs).into(),
            jitter: DEFAULT_JITTER,
        }
    }

    /// Sets the largest share of a wait that is added to it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `jitter` unless it is between 0 and 1.
    pub fn with_jitter(mut self, jitter: f64) -> Result<Self, ConfigError> {
        if (0.0..=1.0).contains(&jitter) {
            self.jitter = jitter;
            Ok(self)
        } else {
            Err(ConfigError::new("jitter", "a number between 0 and 1"))
        }
    }

    /// The wait after so many failed attempts, with jitter; `None` to give up.
    ///
    /// `random` is a number from 0 up to but not including 1.
    pub fn delay(&self, failures: u32, random: f64) -> Option<Duration> {
        let index = usize::try_from(failures).ok()?.checked_sub(1)?;
        let delay = *self.delays.get(index)?;
        Some(delay + delay.mul_f64(self.jitter * fraction(random)))
    }

    /// The waits without jitter.
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// How many attempts there are, the first one included.
    pub fn attempts(&self) -> usize {
        self.delays.len() + 1
    }
}

/// Most waits of one schedule. More is a mistake.
const MAX_DELAYS: usize = 100;

/// The longest wait of a [`Schedule`]. A longer one is a mistake, and huge ones overflow the clock.
pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

const DEFAULT_JITTER: f64 = 0.2;

impl Backoff for Schedule {
    fn delay(&self, failures: u32, random: f64) -> Option<Duration> {
        Self::delay(self, failures, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_standard_schedule_is_ten_attempts_over_75_hours_and_35_minutes() {
        let schedule = Schedule::standard_webhooks();
        assert_eq!(schedule.attempts(), 10);
        let total: Duration = schedule.delays().iter().sum();
        assert_eq!(total, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
        let exact = schedule.with_jitter(0.0).unwrap();
        assert_eq!(exact.delay(1, 0.5), Some(Duration::from_secs(5)));
        assert_eq!(exact.delay(9, 0.5), Some(Duration::from_secs(86_400)));
        assert_eq!(exact.delay(10, 0.5), None);
        assert_eq!(exact.delay(0, 0.5), None);
    }

    #[test]
    fn unusable_schedules_are_refused_by_name() {
        let field = |result: Result<Schedule, ConfigError>| result.unwrap_err().field();
        let endless = std::iter::repeat(Duration::ZERO);
        assert_eq!(field(Schedule::new(endless)), "delays");
        assert_eq!(field(Schedule::new([Duration::MAX])), "delays");
        for jitter in [-0.1, 1.1, f64::NAN] {
            let schedule = Schedule::standard_webhooks().with_jitter(jitter);
            assert_eq!(field(schedule), "jitter");
        }
    }

    proptest! {
        #[test]
        fn jitter_is_only_ever_added(failures in 1_u32..10, random in 0.0..1.0) {
            let schedule = Schedule::standard_webhooks();
            let plain = schedule.delays()[failures as usize - 1];
            let delay = schedule.delay(failures, random).unwrap();
            prop_assert!(delay >= plain && delay <= plain.mul_f64(1.2));
        }
    }
}
