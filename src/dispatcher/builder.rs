use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Dispatcher, Inner, LaneConfig};
use crate::circuit_breaker::CircuitState;
use crate::pool::{Isolation, Limits, PoolConfig, QueueSpace};
use crate::{Attempt, ConfigError, Delivered, DeliveryError, EndpointId, Message, Sender};

const DEFAULT_WORKERS: usize = 64;
const DEFAULT_MAX_SLOW: usize = 256;
const DEFAULT_SLOW_AFTER: Duration = Duration::from_secs(1);
const DEFAULT_MAX_IN_FLIGHT_PER_HOST: usize = 64;
/// With it, five groups whose endpoints all stall leave workers and slow places to others, and four that
/// do so at one host leave room there.
const DEFAULT_GROUP_PARTS: usize = 4;
const DEFAULT_QUEUE_SIZE: usize = 100_000;

/// Builds a [`Dispatcher`]; everything is checked together by [`build`](Self::build).
///
/// # Callbacks
///
/// A callback is called on a worker, if nothing else is said, and must not block its thread. A panic
/// in a callback is logged and has no further effect.
#[must_use]
pub struct DispatcherBuilder {
    pool: PoolConfig,
    isolation: Isolation,
    lane: LaneConfig,
}

impl Default for DispatcherBuilder {
    fn default() -> Self {
        let limits = Limits {
            workers: DEFAULT_WORKERS,
            isolation: None,
            per_host: Some(DEFAULT_MAX_IN_FLIGHT_PER_HOST),
            group_parts: Some(DEFAULT_GROUP_PARTS),
        };
        Self {
            pool: PoolConfig::new(limits, DEFAULT_QUEUE_SIZE),
            isolation: Isolation {
                slow_after: DEFAULT_SLOW_AFTER,
                max_slow: DEFAULT_MAX_SLOW,
            },
            lane: LaneConfig::default(),
        }
    }
}

impl DispatcherBuilder {
    /// Sets how many attempts can be under way at once, besides slow ones: 1 to 10,000. The default
    /// is 64.
    pub fn workers(mut self, workers: usize) -> Self {
        self.pool.limits.workers = workers;
        self
    }

    /// Sets how many slow attempts can be under way without a worker: 1 to 10,000. The default is
    /// 256. Each is a task and a connection. If more endpoints than this do not reply, all at once,
    /// they do keep workers from the others.
    pub fn max_slow(mut self, max_slow: usize) -> Self {
        self.isolation.max_slow = max_slow;
        self
    }

    /// Sets how long an attempt may take before it, and its lane, count as slow: more than zero, at
    /// most an hour. The default is one second.
    pub fn slow_after(mut self, slow_after: Duration) -> Self {
        self.isolation.slow_after = slow_after;
        self
    }

    /// Sets how many attempts can be under way to endpoints with the same host name or address,
    /// whatever the port: at least 1. The default is 64.
    ///
    /// Slow attempts get half of them, and together with those of new endpoints three quarters. So
    /// stalled endpoints do not keep the others at their host waiting.
    pub fn max_in_flight_per_host(mut self, attempts: usize) -> Self {
        self.pool.limits.per_host = Some(attempts);
        self
    }

    /// Sets what the lanes of a [group](LaneConfig::with_group) may have together, whatever their
    /// number: one part in so many of the workers, half of such a part of the [slow](Self::max_slow)
    /// attempts, and of the attempts at a [host](Self::max_in_flight_per_host) one part while all
    /// others there do not add up to that, and a third of it beside them; at least one of each. At
    /// least 1; the default is 4: 16 of 64 workers, 32 of 256 slow attempts, and of 64 attempts at a
    /// host 16, or 5 beside others.
    ///
    /// A lane whose group has its share waits until an attempt of the group ends. As with slow
    /// endpoints in general, only so many groups can be kept apart, whatever their size. With the
    /// defaults five of them can stall at once and leave workers and slow places to others. At one and
    /// the same host it is four that leave attempts there to the slow endpoints of others, seven that
    /// leave some to new ones, and ten to quick ones.
    pub fn group_parts(mut self, parts: usize) -> Self {
        self.pool.limits.group_parts = Some(parts);
        self
    }

    /// Sets how many messages can be queued or wait for their next attempt, for all endpoints
    /// together: 1 to 10,000,000. The default is 100,000.
    pub fn queue_size(mut self, queue_size: usize) -> Self {
        self.pool.queue_size = queue_size;
        self
    }

    /// Sets how endpoints are treated that are added without settings of their own.
    pub fn lane(mut self, lane: LaneConfig) -> Self {
        self.lane = lane;
        self
    }

    /// Sets what is called after each attempt, before the outcome of its message is reported.
    /// An attempt that a stop interrupts is not reported.
    pub fn on_attempt(
        mut self,
        on_attempt: impl Fn(&EndpointId, &Message, &Attempt) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.attempt = Some(Box::new(on_attempt));
        self
    }

    /// Sets what is called with each message that was delivered, and how it was.
    ///
    /// Each message that [`notify`](Dispatcher::notify) or [`enqueue`](Dispatcher::enqueue)
    /// accepted leads to exactly one call: of this callback, or of
    /// [`on_error`](Self::on_error). The same holds for [`deliver`](Dispatcher::deliver) when its
    /// future was dropped; otherwise `deliver` returns the outcome, and neither is called.
    pub fn on_delivered(
        mut self,
        on_delivered: impl Fn(&EndpointId, Delivered) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.delivered = Some(Box::new(on_delivered));
        self
    }

    /// Sets what is called with each message that failed for good, which is in the error. Without
    /// it, such messages are logged.
    ///
    /// An endpoint that is removed fails what waits for it, on the thread that removes it.
    pub fn on_error(
        mut self,
        on_error: impl Fn(&EndpointId, DeliveryError) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.error = Some(Box::new(on_error));
        self
    }

    /// Sets what is called when an endpoint replies `410 Gone`, and gets nothing more from then on.
    /// What waited for it is reported to the error callback next.
    pub fn on_gone(mut self, on_gone: impl Fn(&EndpointId) + Send + Sync + 'static) -> Self {
        self.pool.callbacks.gone = Some(Box::new(on_gone));
        self
    }

    /// Sets what is called when a circuit opens, begins to probe, or closes, with its new state.
    ///
    /// Calls come one at a time, and for each endpoint in order. Changes that follow one another
    /// while a call lasts are reported as one. A circuit that is opened or closed by hand is
    /// reported on the thread that does so.
    pub fn on_circuit_change(
        mut self,
        on_change: impl Fn(&EndpointId, CircuitState) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.circuit_change = Some(Box::new(on_change));
        self
    }

    /// Sends through this sender, which decides how connections are made: to which addresses, with
    /// which certificates, through which HTTP client. The default is `Sender::builder().build()`.
    ///
    /// URLs that you do not trust need [`AddressPolicy::PublicOnly`](crate::AddressPolicy). Clones of
    /// a sender share its connections: several dispatchers and clients can use one.
    ///
    /// ```
    /// # fn example() -> Result<(), tidings::ConfigError> {
    /// use tidings::{AddressPolicy, Dispatcher, Sender};
    ///
    /// let sender = Sender::builder()
    ///     .address_policy(AddressPolicy::PublicOnly)
    ///     .build()?;
    /// let dispatcher = Dispatcher::builder().sender(sender).build()?;
    /// # Ok(()) }
    /// ```
    pub fn sender(mut self, sender: Sender) -> Self {
        self.pool.sender = Some(sender);
        self
    }

    /// Checks everything and builds the dispatcher.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field: `workers`, `max_slow`, `slow_after`,
    /// `max_in_flight_per_host`, `group_parts`, `queue_size`, and those of [`LaneConfig`].
    pub fn build(mut self) -> Result<Dispatcher, ConfigError> {
        self.pool.limits.isolation = Some(self.isolation);
        let lane = self.lane.settings()?;
        let queue_size = self.pool.queue_size;
        let pool = self.pool.build()?;
        Ok(Dispatcher {
            inner: Arc::new(Inner {
                pool,
                space: QueueSpace::new(queue_size),
                lane,
            }),
        })
    }
}

impl fmt::Debug for DispatcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatcherBuilder")
            .field("pool", &self.pool)
            .field("isolation", &self.isolation)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}
