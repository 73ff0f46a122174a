use crate::ConfigError;
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerConfig};
use crate::client::DEFAULT_QUEUE_SIZE;
use crate::pool::{LaneParts, MAX_WORKERS, RetryBudget, check_queue_size};
use crate::retry::RetryPolicy;

/// The settings of one lane: how much may wait for an endpoint, and how it is treated.
///
/// | setting | default |
/// |---|---|
/// | queue | 1000 places |
/// | attempts under way | 1 to 32 |
/// | retry | [`RetryPolicy::default`]: five attempts |
/// | retry budget | [`RetryBudget::default`]: 20 %, and one a second |
/// | circuit breaker | [`CircuitBreakerConfig::default`] |
/// | `410 Gone` | stops the lane |
#[derive(Debug, Clone)]
#[must_use]
pub struct LaneConfig {
    queue_size: usize,
    min_in_flight: u32,
    max_in_flight: u32,
    retry: Option<RetryPolicy>,
    retry_budget: Option<RetryBudget>,
    circuit_breaker: Option<CircuitBreakerConfig>,
    stops_when_gone: bool,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            queue_size: DEFAULT_QUEUE_SIZE,
            min_in_flight: 1,
            max_in_flight: 32,
            retry: Some(RetryPolicy::default()),
            retry_budget: Some(RetryBudget::default()),
            circuit_breaker: Some(CircuitBreakerConfig::default()),
            stops_when_gone: true,
        }
    }
}

impl LaneConfig {
    /// Sets how many messages can be queued or wait for their next attempt: 1 to 10,000,000. The
    /// default is 1000. A lane that exists keeps the size that it began with.
    pub fn with_queue_size(mut self, queue_size: usize) -> Self {
        self.queue_size = queue_size;
        self
    }

    /// Sets between which numbers the limit on attempts under way adapts itself: 1 to 10,000, the
    /// first no larger than the second. The default is 1 and 32. A lane begins with the smaller
    /// one, and a stalled endpoint is left with it.
    pub fn with_in_flight(mut self, min: u32, max: u32) -> Self {
        (self.min_in_flight, self.max_in_flight) = (min, max);
        self
    }

    /// Tries failed messages again in another way.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Makes one attempt for each message. Those that meet an open circuit fail at once.
    pub fn without_retry(mut self) -> Self {
        self.retry = None;
        self
    }

    /// Limits retries to a failing endpoint in another way.
    pub fn with_retry_budget(mut self, budget: RetryBudget) -> Self {
        self.retry_budget = Some(budget);
        self
    }

    /// Lets every retry go when it is due, in one line with new messages.
    pub fn without_retry_budget(mut self) -> Self {
        self.retry_budget = None;
        self
    }

    /// Leaves a failing endpoint alone by other rules.
    pub fn with_circuit_breaker(mut self, config: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = Some(config);
        self
    }

    /// Never leaves a failing endpoint alone. Its circuit cannot be opened by hand either.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.circuit_breaker = None;
        self
    }

    /// Lets `410 Gone` fail its message alone, as any other permanent answer does. Without this, an
    /// endpoint that answers so gets nothing more: see [`Dispatcher`](crate::Dispatcher).
    pub fn without_stop_when_gone(mut self) -> Self {
        self.stops_when_gone = false;
        self
    }

    pub(super) fn queue_size(&self) -> usize {
        self.queue_size
    }

    /// Checks everything.
    pub(super) fn parts(&self) -> Result<LaneParts, ConfigError> {
        check_queue_size(self.queue_size)?;
        let (min, max) = (self.min_in_flight, self.max_in_flight);
        if min == 0 || min > max || max > MAX_WORKERS {
            return Err(ConfigError::new(
                "in_flight",
                "1 to 10,000, the smaller number first",
            ));
        }
        if let Some(budget) = &self.retry_budget {
            budget.check()?;
        }
        Ok(LaneParts {
            retry: self.retry.clone(),
            budget: self.retry_budget,
            breaker: self.circuit_breaker.map(CircuitBreaker::new).transpose()?,
            in_flight: (min, max),
            stops_when_gone: self.stops_when_gone,
        })
    }
}
