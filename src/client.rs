//! The client of one endpoint: a pool of workers with a single lane.

mod builder;

use std::sync::Arc;
use std::time::Duration;

pub use builder::{ClientBuilder, DEFAULT_QUEUE_SIZE, DEFAULT_WORKERS};

use crate::circuit_breaker::CircuitState;
use crate::pool::{Permits, Pool, QueuePermit};
use crate::{
    Closed, ConfigError, Delivered, DeliveryError, EndpointId, LaneStatus, Message, NotifyError,
    Refusal,
};

/// Sends messages to one endpoint in the background.
///
/// A bounded queue feeds a fixed number of workers. Call [`start`](Self::start) before sending and
/// [`stop`](Self::stop) at the end. Clones share the queue and the workers.
///
/// When the last clone is dropped without a stop, attempts under way are dropped, and every message
/// that is left is reported to the error callback.
///
/// # What the queue bounds
///
/// Messages that are queued and messages that wait for their next attempt, together. With a retry
/// policy a message keeps its place from its acceptance to its final outcome, because it may have
/// to wait again at any time; without one it leaves the queue when a worker takes it. When the queue
/// is full, [`notify`](Self::notify) refuses new messages, and [`enqueue`](Self::enqueue) and
/// [`deliver`](Self::deliver) wait.
///
/// # Callbacks
///
/// A callback that owns a clone of the client keeps it alive: the client owns its callbacks. Then
/// dropping the other clones stops nothing, and only [`stop`](Self::stop) does. Give the callback
/// something weaker, or a channel.
///
/// When the runtime that [`start`](Self::start) was called on ends, so does the client: what is left
/// is reported, and new messages are refused.
///
/// # Pauses
///
/// `Retry-After` on a 429 or 503 response pauses the client for that time, at most a day. Messages
/// keep waiting, as far as the retry policy's maximum age allows; without a retry policy they fail
/// as [`RetryAfter`](crate::DeliveryErrorCause::RetryAfter), without an attempt. A pause of more than a
/// minute is logged and [counted](crate::telemetry::ENDPOINT_PAUSED); [`status`](Self::status) shows
/// its end, and [`unblock`](Self::unblock) ends it.
///
/// # An endpoint that is gone
///
/// `410 Gone` fails its message and no other: the owner of the only endpoint decides what to do
/// about it. A [`Dispatcher`](crate::Dispatcher) stops sending to such an endpoint.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    /// The name of the only lane.
    id: EndpointId,
    permits: Arc<Permits>,
}

impl Client {
    /// A client with the default settings: 10 workers, a queue of 1000, 30 seconds for an attempt,
    /// no retry, no circuit breaker, no signature.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the URL is empty, malformed, or not `http` or `https`.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// Returns a builder for a client.
    pub fn builder(url: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(url.as_ref())
    }

    /// Starts the workers. Starting again, or after a stop, has no effect.
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime: the workers run on the current one.
    pub fn start(&self) {
        self.inner.pool.start();
    }

    /// Queues a message and returns at once. Its outcome is reported only to the callbacks for
    /// [delivered](ClientBuilder::on_delivered) and for [failed](ClientBuilder::on_error) messages.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message when the client is not started, or stopped, or the queue is
    /// full.
    pub fn notify(&self, message: impl Into<Message>) -> Result<(), NotifyError> {
        let permit = self.inner.permits.try_acquire();
        let permit = permit.ok_or(Refusal::QueueFull);
        self.accept(message.into(), permit)
            .map_err(|(message, refusal)| NotifyError::refused(message, refusal))
    }

    /// Queues a message and waits for a place in the queue. Calls that wait get one in turn.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message when the client is not started, or stopped.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the message was either queued or not; it is never queued in
    /// part.
    pub async fn enqueue(&self, message: impl Into<Message> + Send) -> Result<(), NotifyError> {
        let message = message.into();
        let permit = self.permit().await;
        self.accept(message, permit)
            .map_err(|(message, closed)| NotifyError::refused(message, closed))
    }

    /// Queues a message, waits for a place in the queue if necessary, and waits for the final outcome.
    /// The outcome is returned here and not reported to a callback.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] with the message and every attempt.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before the message is queued, nothing is sent. Later, the
    /// delivery continues, and its outcome is reported to a callback: within the drop if it has
    /// arrived by then.
    pub async fn deliver(
        &self,
        message: impl Into<Message> + Send,
    ) -> Result<Delivered, DeliveryError> {
        let message = message.into();
        let permit = self.permit().await;
        let Inner { pool, id, .. } = &*self.inner;
        pool.deliver(id.as_str(), message, permit)?.await
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    ///
    /// Retries continue by their schedule, and attempts by the rate limit, so this takes as long as
    /// these allow. The endpoint has no say in it: an open circuit is not waited for, and a
    /// `Retry-After` for five seconds at most; then they fail what they put off.
    /// [`stop_within`](Self::stop_within) sets a limit. Stopping is final; stopping again waits for
    /// the same end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the client stopping.
    pub async fn stop(&self) {
        self.inner.pool.stop().await;
    }

    /// Stops like [`stop`](Self::stop), but gives up after a time: attempts under way are dropped,
    /// and the messages without a final outcome are reported to the error callback as
    /// [`Abandoned`](crate::DeliveryErrorCause::Abandoned) and returned.
    ///
    /// An attempt that is dropped may have reached the endpoint.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the client stopping, without the limit.
    pub async fn stop_within(&self, limit: Duration) -> Vec<Message> {
        let left = self.inner.pool.stop_within(limit).await;
        left.into_iter().map(|(_, message)| message).collect()
    }

    /// How many messages are queued or wait for their next attempt.
    pub fn queued(&self) -> usize {
        self.inner.pool.queued()
    }

    /// The state of the circuit breaker, if there is one.
    pub fn circuit_state(&self) -> Option<CircuitState> {
        self.status().circuit
    }

    /// How the endpoint is doing: also until when nothing is sent, because its circuit is open or
    /// because it asked for that.
    #[expect(clippy::missing_panics_doc, reason = "it cannot happen, and says why")]
    pub fn status(&self) -> LaneStatus {
        let status = self.inner.pool.status(self.inner.id.as_str());
        status.expect("the lane was added with the client and is never removed")
    }

    /// Ends what keeps requests from the endpoint: closes its circuit, and forgets its `Retry-After`,
    /// also for the messages that it was sent for.
    pub fn unblock(&self) {
        self.inner.pool.unblock(self.inner.id.as_str());
    }

    async fn permit(&self) -> Result<QueuePermit, Closed> {
        // The queue is closed when the client stops.
        let permit = self.inner.permits.acquire().await;
        permit.ok_or(Closed::Stopped)
    }

    fn accept<R: From<Closed>>(
        &self,
        message: Message,
        permit: Result<QueuePermit, R>,
    ) -> Result<(), (Message, R)> {
        let id = self.inner.id.as_str();
        self.inner.pool.accept(id, message, permit, None)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.abort();
    }
}
