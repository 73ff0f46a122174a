use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Client, Inner};
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::pool::{Limits, PoolConfig};
use crate::retry::RetryPolicy;
use crate::signing::{Secret, Signer};
use crate::{
    Attempt, Classifier, ConfigError, Delivered, DeliveryError, Endpoint, EndpointBuilder,
    EndpointId, LaneConfig, Message, Sender,
};

/// Default number of workers, which is the number of attempts that can be under way at once.
pub const DEFAULT_WORKERS: usize = 10;

/// Default number of places in the queue.
pub const DEFAULT_QUEUE_SIZE: usize = 1000;

/// Builds a [`Client`]; everything is checked together by [`build`](Self::build).
///
/// # Callbacks
///
/// A callback is called on a worker and must not block it. A panic in a callback is logged and has
/// no further effect. Callbacks are those of a [`DispatcherBuilder`](crate::DispatcherBuilder)
/// without the endpoint's id.
#[must_use]
pub struct ClientBuilder {
    endpoint: EndpointBuilder,
    pool: PoolConfig,
    lane: LaneConfig,
}

impl ClientBuilder {
    pub(super) fn new(url: &str) -> Self {
        let limits = Limits {
            workers: DEFAULT_WORKERS,
            // The only endpoint may have all workers.
            isolation: None,
            per_host: None,
            group_parts: None,
        };
        Self {
            endpoint: Endpoint::builder(url),
            pool: PoolConfig::new(limits, DEFAULT_QUEUE_SIZE),
            lane: LaneConfig::default()
                .without_retry()
                .without_retry_budget()
                .without_circuit_breaker()
                // It could not be inserted again.
                .without_stop_when_gone(),
        }
    }

    /// Sets how many attempts can be under way at once: 1 to 10,000. The default is 10.
    pub fn workers(mut self, workers: usize) -> Self {
        self.pool.limits.workers = workers;
        self
    }

    /// Sets how many messages can be queued or wait for their next attempt: 1 to 10,000,000. The
    /// default is 1000.
    pub fn queue_size(mut self, queue_size: usize) -> Self {
        self.pool.queue_size = queue_size;
        self
    }

    /// Sets the deadline of an attempt: more than zero, at most an hour. The default is 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.endpoint = self.endpoint.timeout(timeout);
        self
    }

    /// Sets how long an attempt waits for the status line and the headers, counted from its start.
    /// More than zero; the default is the whole timeout.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint = self.endpoint.first_byte_timeout(timeout);
        self
    }

    /// Sets the `content-type` of messages without one. The default is
    /// `text/plain; charset=utf-8`.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.endpoint = self.endpoint.content_type(content_type);
        self
    }

    /// Signs by Standard Webhooks with one more secret, the current one first.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.endpoint = self.endpoint.secret(secret);
        self
    }

    /// Signs in another way.
    pub fn signer(mut self, signer: impl Into<Signer>) -> Self {
        self.endpoint = self.endpoint.signer(signer);
        self
    }

    /// Sets what the endpoint's responses mean. The default is [`Classifier::default`].
    pub fn classifier(mut self, classifier: Classifier) -> Self {
        self.endpoint = self.endpoint.classifier(classifier);
        self
    }

    /// Adds a header to every request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.endpoint = self.endpoint.header(name, value);
        self
    }

    /// Retries failed messages. Without this, each message has one attempt.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.lane = self.lane.with_retry(retry);
        self
    }

    /// Sends nothing to a failing endpoint for a while.
    ///
    /// Without a retry policy, a message that meets an open circuit fails at once. With one, it
    /// waits until the circuit admits it, for as long as the policy's maximum age allows, and that
    /// does not count as an attempt.
    pub fn circuit_breaker(mut self, config: CircuitBreakerConfig) -> Self {
        self.lane = self.lane.with_circuit_breaker(config);
        self
    }

    /// Limits how many attempts begin in which time: 1 to 1,000,000 in more than zero and at most a
    /// day. The default is no limit.
    ///
    /// Attempts keep an even distance, without bursts after an idle time. Messages beyond the limit
    /// wait in the queue.
    pub fn rate_limit(mut self, attempts: u32, per: Duration) -> Self {
        self.lane = self.lane.with_rate_limit(attempts, per);
        self
    }

    /// Sets what is called after each attempt, before the outcome of its message is reported.
    /// An attempt that a stop interrupts is not reported.
    pub fn on_attempt(
        mut self,
        on_attempt: impl Fn(&Message, &Attempt) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.attempt = Some(Box::new(move |_, message, attempt| {
            on_attempt(message, attempt);
        }));
        self
    }

    /// Sets what is called with each message that was delivered, and how it was.
    ///
    /// Each message that [`notify`](Client::notify) or [`enqueue`](Client::enqueue) accepted leads
    /// to exactly one call: of this callback, or of [`on_error`](Self::on_error). The same holds
    /// for [`deliver`](Client::deliver) when its future was dropped; otherwise `deliver` returns
    /// the outcome, and neither is called.
    pub fn on_delivered(
        mut self,
        on_delivered: impl Fn(Delivered) + Send + Sync + 'static,
    ) -> Self {
        self.pool.callbacks.delivered = Some(Box::new(move |_, delivered| on_delivered(delivered)));
        self
    }

    /// Sets what is called with each message that failed for good, which is in the error. Without
    /// it, such messages are logged.
    pub fn on_error(mut self, on_error: impl Fn(DeliveryError) + Send + Sync + 'static) -> Self {
        self.pool.callbacks.error = Some(Box::new(move |_, error| on_error(error)));
        self
    }

    /// Sends through this sender, which decides how connections are made: to which addresses, with
    /// which certificates, through which HTTP client. The default is `Sender::builder().build()`.
    ///
    /// Clones of a sender share its connections: several clients can use one.
    ///
    /// ```
    /// # fn example(authorities: &str) -> Result<(), tidings::ConfigError> {
    /// use tidings::{Client, Sender};
    ///
    /// let sender = Sender::builder().root_certificates(authorities).build()?;
    /// let client = Client::builder("https://hooks.example.internal/")
    ///     .sender(sender)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn sender(mut self, sender: Sender) -> Self {
        self.pool.sender = Some(sender);
        self
    }

    /// Checks everything and builds the client.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field: `workers`, `queue_size`, `rate_limit`, `max_attempts`, and those of
    /// [`EndpointBuilder::build`] and
    /// [`CircuitBreaker::new`](crate::circuit_breaker::CircuitBreaker::new).
    pub fn build(self) -> Result<Client, ConfigError> {
        let Self {
            endpoint,
            pool,
            lane,
        } = self;
        // The pool allows far fewer.
        let workers = u32::try_from(pool.limits.workers).unwrap_or(u32::MAX);
        let lane = lane
            .with_queue_size(pool.queue_size)
            .with_in_flight(workers, workers);
        let pool = pool.build()?;
        let lane = lane.settings()?;
        let id = EndpointId::from("");
        let permits = pool.add(&id, endpoint.build()?, lane);
        Ok(Client {
            inner: Arc::new(Inner { pool, id, permits }),
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("pool", &self.pool)
            .field("lane", &self.lane)
            .finish()
    }
}
