use std::sync::Arc;
use std::time::Duration;

use crate::ConfigError;
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::client::DEFAULT_QUEUE_SIZE;
use crate::pool::{LaneSettings, MAX_WORKERS, RateLimit, check_queue_size};
use crate::retry::{RetryBudget, RetryPolicy};

/// The settings of one lane: how much may wait for an endpoint, and how it is treated.
///
/// | setting | default |
/// |---|---|
/// | queue | 1000 places |
/// | attempts under way | 1 to 32 |
/// | retry | [`RetryPolicy::default`]: five attempts |
/// | retry budget | [`RetryBudget::default`]: 20 %, and one a second |
/// | rate limit | none |
/// | circuit breaker | [`CircuitBreakerConfig::default`] |
/// | `410 Gone` | stops the lane |
/// | group | none |
#[derive(Debug, Clone)]
#[must_use]
pub struct LaneConfig {
    queue_size: usize,
    min_in_flight: u32,
    max_in_flight: u32,
    retry: Option<RetryPolicy>,
    retry_budget: Option<RetryBudget>,
    circuit_breaker: Option<CircuitBreakerConfig>,
    rate_limit: Option<RateLimit>,
    stops_when_gone: bool,
    group: Option<Arc<str>>,
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
            rate_limit: None,
            stops_when_gone: true,
            group: None,
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

    /// Sets when failed messages are retried.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Makes one attempt for each message. Messages that meet an open circuit or a pause fail at
    /// once, without an attempt.
    pub fn without_retry(mut self) -> Self {
        self.retry = None;
        self
    }

    /// Sets how many of the requests to a failing endpoint may be retries.
    pub fn with_retry_budget(mut self, budget: RetryBudget) -> Self {
        self.retry_budget = Some(budget);
        self
    }

    /// Sends every retry when it is due, in one order with new messages.
    pub fn without_retry_budget(mut self) -> Self {
        self.retry_budget = None;
        self
    }

    /// Sets when a failing endpoint gets no requests for a while.
    pub fn with_circuit_breaker(mut self, config: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = Some(config);
        self
    }

    /// Uses no circuit breaker. The circuit cannot be opened by hand either.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.circuit_breaker = None;
        self
    }

    /// Limits how many attempts begin in which time: 1 to 1,000,000 in more than zero and at most a
    /// day. The default is no limit.
    ///
    /// Attempts keep an even distance, without bursts after an idle time. Messages beyond the limit
    /// wait in the queue.
    pub fn with_rate_limit(mut self, attempts: u32, per: Duration) -> Self {
        self.rate_limit = Some(RateLimit::new(attempts, per));
        self
    }

    /// Lets `410 Gone` fail only its message, as any other permanent response does. Without this,
    /// an endpoint that replies so gets nothing more: see [`Dispatcher`](crate::Dispatcher).
    pub fn without_stop_when_gone(mut self) -> Self {
        self.stops_when_gone = false;
        self
    }

    /// Puts the lane into a group: that of the endpoint's owner, for instance. All lanes of a group
    /// together have no more than [one share](crate::DispatcherBuilder::group_parts) of the workers.
    /// So an owner whose endpoints all stop replying, however many they are, does not keep the
    /// messages of others waiting. The default is no group, and no such limit.
    pub fn with_group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Checks the ranges, as [`DispatcherBuilder::build`](crate::DispatcherBuilder::build) and
    /// [`Dispatcher::insert_with`](crate::Dispatcher::insert_with) do.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.settings().map(drop)
    }

    pub(crate) fn settings(&self) -> Result<LaneSettings, ConfigError> {
        check_queue_size(self.queue_size)?;
        let (min, max) = (self.min_in_flight, self.max_in_flight);
        if min == 0 || min > max || max > MAX_WORKERS {
            return Err(ConfigError::new(
                "in_flight",
                "1 to 10,000, the smaller number first",
            ));
        }
        if let Some(retry) = &self.retry {
            retry.check()?;
        }
        if let Some(budget) = &self.retry_budget {
            budget.check()?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            breaker.check()?;
        }
        if let Some(rate) = &self.rate_limit {
            rate.check()?;
        }
        Ok(LaneSettings {
            queue_size: self.queue_size,
            retry: self.retry.clone(),
            budget: self.retry_budget,
            breaker: self.circuit_breaker,
            rate: self.rate_limit,
            in_flight: (min, max),
            stops_when_gone: self.stops_when_gone,
            group: self.group.clone(),
        })
    }
}
