//! Sends nothing to a failing endpoint for a while, and then tries it with a few attempts first.
//!
//! ```text
//!            too many failures
//!   Closed ───────────────────▶ Open ◀──────────────┐
//!     ▲                          │ time is up       │ the probe fails, or
//!     │                          ▼                  │ most of a later round
//!     └──────────────────── HalfOpen ───────────────┘
//!       enough successes:   1, 2, 4 … at once
//! ```
//!
//! An endpoint that fails some of the time is sent to as long as it takes at least half: a recovery
//! that no failure may disturb would hardly ever close its circuit.
//!
//! The breaker is a pure state machine: it admits attempts, gets their results, and is given the
//! time. It does not sleep, and it sends nothing.

mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::ConfigError;
use window::Window;

/// Whether attempts are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// All attempts are admitted.
    Closed,
    /// No attempt is admitted.
    Open,
    /// A few attempts are admitted, to find out whether the endpoint has recovered.
    HalfOpen,
}

/// When a [`CircuitBreaker`] trips, and how it recovers.
///
/// In a [`Client`](crate::Client) or [`Dispatcher`](crate::Dispatcher) a failure is an attempt that
/// can be retried: no response, or a status such as 503. Every other status shows that the
/// endpoint works, including 3xx, 401, 403 and 404: an endpoint that replies 404 to everything
/// fails every message and never opens its circuit. An attempt that failed because of this machine
/// counts neither way.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct CircuitBreakerConfig {
    consecutive_failures: u32,
    failure_rate: Option<FailureRate>,
    open_for: Duration,
    /// `None`: the default, or `open_for` if that is longer.
    max_open_for: Option<Duration>,
    ramp: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct FailureRate {
    rate: f64,
    min_attempts: u32,
    window: Duration,
}

impl Default for CircuitBreakerConfig {
    /// Trips after five failures in a row or half of at least ten attempts in a minute; stays open
    /// for 30 seconds, doubling up to ten minutes; closes once two of four attempts at a time succeed.
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_rate: Some(FailureRate {
                rate: 0.5,
                min_attempts: 10,
                window: Duration::from_secs(60),
            }),
            open_for: Duration::from_secs(30),
            max_open_for: None,
            ramp: 4,
        }
    }
}

const DEFAULT_MAX_OPEN_FOR: Duration = Duration::from_secs(600);

/// Longest time that a circuit stays open.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl CircuitBreakerConfig {
    /// Sets how many failures in a row trip the breaker. At least 1; the default is 5.
    pub fn with_consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets which share of failures trips the breaker (more than 0, at most 1; the default is
    /// 0.5), from how many attempts on it is looked at (at least 1; 10), and over which time (more
    /// than zero, at most a day; one minute).
    pub fn with_failure_rate(mut self, rate: f64, min_attempts: u32, window: Duration) -> Self {
        self.failure_rate = Some(FailureRate {
            rate,
            min_attempts,
            window,
        });
        self
    }

    /// Trips only on failures in a row.
    pub fn without_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Sets for how long the breaker stays open the first time. More than zero, at most a day; the
    /// default is 30 seconds. Each failed probe doubles it, up to [`with_max_open_for`](Self::with_max_open_for).
    /// Clients and dispatchers send the probe up to a tenth later, unless a new message comes, so
    /// that endpoints that failed together are not probed together.
    pub fn with_open_for(mut self, open_for: Duration) -> Self {
        self.open_for = open_for;
        self
    }

    /// Sets for how long the breaker stays open at most. At least
    /// [`with_open_for`](Self::with_open_for), at most a day; the default is ten minutes, or
    /// [`with_open_for`](Self::with_open_for) if that is longer.
    pub fn with_max_open_for(mut self, max_open_for: Duration) -> Self {
        self.max_open_for = Some(max_open_for);
        self
    }

    /// Sets how many attempts the last round before the breaker closes has. It admits one probe,
    /// then twice as many with each round of which at least half succeeds. When more than half of a
    /// later round fails, it is open again for the time of the first opening. At least 1, which
    /// closes it after one successful probe; the default is 4.
    pub fn with_ramp(mut self, ramp: u32) -> Self {
        self.ramp = ramp;
        self
    }

    fn max_open_for(&self) -> Duration {
        let default = || DEFAULT_MAX_OPEN_FOR.max(self.open_for);
        self.max_open_for.unwrap_or_else(default)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.consecutive_failures == 0 {
            return Err(ConfigError::new("consecutive_failures", "at least 1"));
        }
        if let Some(limit) = &self.failure_rate
            && !(limit.rate > 0.0
                && limit.rate <= 1.0
                && limit.min_attempts > 0
                && !limit.window.is_zero()
                && limit.window <= DAY)
        {
            return Err(ConfigError::new(
                "failure_rate",
                "a rate above 0 and at most 1, at least 1 attempt, and a window above zero and of at most a day",
            ));
        }
        if self.open_for.is_zero() || self.open_for > DAY {
            let expected = "more than zero and at most a day";
            return Err(ConfigError::new("open_for", expected));
        }
        if self.max_open_for() < self.open_for || self.max_open_for() > DAY {
            return Err(ConfigError::new(
                "max_open_for",
                "at least `open_for` and at most a day",
            ));
        }
        if self.ramp == 0 {
            return Err(ConfigError::new("ramp", "at least 1"));
        }
        Ok(())
    }
}

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub struct CircuitBreaker {
    config: CircuitBreakerConfig,
    /// Marks its permits: those of other breakers have another.
    id: u64,
    state: State,
    /// Counts the changes of state. What was admitted before one says nothing about the time after.
    generation: u64,
    /// For how long the next opening lasts.
    next_open_for: Duration,
}

#[derive(Debug)]
enum State {
    Closed {
        failures_in_a_row: u32,
        window: Option<Window>,
    },
    Open {
        /// `None`: until it is closed by hand.
        until: Option<Instant>,
    },
    HalfOpen {
        limit: u32,
        in_flight: u32,
        successes: u32,
        failures: u32,
    },
}

/// Whether an attempt may be made: the result of [`CircuitBreaker::admit`].
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may. Hand the permit to [`CircuitBreaker::record`] in any case.
    Admitted(Permit),
    /// Not now.
    Refused {
        /// When to ask again; `None` while that depends on attempts under way, or when the breaker
        /// was opened by hand.
        retry_at: Option<Instant>,
    },
}

/// The right to make one attempt. It belongs to the breaker that gave it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not recorded keeps its place in a half-open breaker"]
pub struct Permit {
    breaker: u64,
    generation: u64,
}

/// What came of an attempt, as far as the health of the endpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// The endpoint replied in a way that only a working one does.
    Healthy,
    /// It did not reply, or said that it cannot take the message.
    Failing,
    /// Nothing was learned, for instance because the attempt was not made after all.
    Unknown,
}

impl CircuitBreaker {
    /// A closed breaker.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting that is out of its range.
    pub fn new(config: CircuitBreakerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::with_checked(config))
    }

    pub(crate) fn with_checked(config: CircuitBreakerConfig) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            config,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            state: State::closed(&config),
            generation: 0,
            next_open_for: config.open_for,
        }
    }

    /// Whether attempts are admitted. An open breaker becomes half-open with the first attempt
    /// that it admits.
    pub fn state(&self) -> CircuitState {
        match self.state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Whether it was opened by hand.
    pub(crate) fn is_open_by_hand(&self) -> bool {
        matches!(self.state, State::Open { until: None })
    }

    /// When an open breaker is probed; `None` when it is not open, or was opened by hand.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => until,
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// For how long it opens when it trips next: for longer after each failed probe.
    pub fn next_open_for(&self) -> Duration {
        self.next_open_for
    }

    /// When it trips and how it recovers.
    pub fn config(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    /// Asks to make one attempt.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let State::Open { until } = self.state {
            if until.is_none_or(|until| now < until) {
                return Admission::Refused { retry_at: until };
            }
            self.enter(State::HalfOpen {
                limit: 1,
                in_flight: 0,
                successes: 0,
                failures: 0,
            });
        }
        if let State::HalfOpen {
            limit, in_flight, ..
        } = &mut self.state
        {
            if *in_flight >= *limit {
                return Admission::Refused { retry_at: None };
            }
            *in_flight += 1;
        }
        Admission::Admitted(Permit {
            breaker: self.id,
            generation: self.generation,
        })
    }

    /// Records the result of an admitted attempt. One that was admitted before the last change of
    /// state, or by another breaker, is ignored.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a permit is good for one attempt"
    )]
    pub fn record(&mut self, permit: Permit, health: Health, now: Instant) {
        if (permit.breaker, permit.generation) != (self.id, self.generation) {
            return;
        }
        match &mut self.state {
            State::Open { .. } => {}
            State::Closed {
                failures_in_a_row,
                window,
            } => {
                let failed = match health {
                    Health::Unknown => return,
                    Health::Healthy => false,
                    Health::Failing => true,
                };
                *failures_in_a_row = if failed { *failures_in_a_row + 1 } else { 0 };
                let mut trips = *failures_in_a_row >= self.config.consecutive_failures;
                if let (Some(window), Some(limit)) = (window, &self.config.failure_rate) {
                    window.record(failed, now);
                    trips |= failed && window.exceeds(limit.rate, limit.min_attempts);
                }
                if trips {
                    self.trip(now);
                }
            }
            State::HalfOpen {
                limit,
                in_flight,
                successes,
                failures,
            } => {
                *in_flight = in_flight.saturating_sub(1);
                match health {
                    Health::Unknown => return,
                    Health::Failing => *failures += 1,
                    Health::Healthy => *successes += 1,
                }
                if *failures > *limit / 2 {
                    if *limit > 1 {
                        // It worked for the probe.
                        self.next_open_for = self.config.open_for;
                    }
                    self.trip(now);
                } else if *successes + *failures >= *limit {
                    if *limit >= self.config.ramp {
                        self.close();
                    } else {
                        *limit = limit.saturating_mul(2).min(self.config.ramp);
                        (*successes, *failures) = (0, 0);
                    }
                }
            }
        }
    }

    /// Opens the breaker by hand. It stays open, and sends no probe, until it is
    /// [closed](Self::close) by hand as well.
    pub fn open(&mut self) {
        self.enter(State::Open { until: None });
    }

    /// Continues where another breaker of the same endpoint stood, in another process or before a restart: open, with a
    /// probe from `now` on. If that fails, the breaker opens for `next_open_for`, or for the nearest time that its
    /// settings allow.
    pub fn resume(&mut self, next_open_for: Duration, now: Instant) {
        let shortest = self.config.open_for;
        self.next_open_for = next_open_for.clamp(shortest, self.config.max_open_for());
        self.enter(State::Open { until: Some(now) });
    }

    /// Closes the breaker by hand and forgets what it has seen.
    pub fn close(&mut self) {
        self.next_open_for = self.config.open_for;
        self.enter(State::closed(&self.config));
    }

    fn trip(&mut self, now: Instant) {
        self.enter(State::Open {
            until: Some(now + self.next_open_for),
        });
        self.next_open_for = self
            .next_open_for
            .saturating_mul(2)
            .min(self.config.max_open_for());
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

impl State {
    fn closed(config: &CircuitBreakerConfig) -> Self {
        Self::Closed {
            failures_in_a_row: 0,
            window: config
                .failure_rate
                .map(|failure_rate| Window::new(failure_rate.window)),
        }
    }
}

#[cfg(test)]
mod tests;
