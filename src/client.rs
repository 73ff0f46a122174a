//! The client of one endpoint: a pool of workers with a single lane.

mod builder;
mod delivery;
mod lane;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub use builder::{ClientBuilder, DEFAULT_QUEUE_SIZE, DEFAULT_WORKERS};
pub use delivery::Receipt;

use crate::circuit_breaker::CircuitState;
use crate::{ConfigError, DeliveryError, DeliveryErrorCause, Message, NotifyError};
use pool::Pool;

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
/// to wait again at any time; without one it leaves the queue when a worker takes it. A full queue
/// refuses new messages ([`notify`](Self::notify)) or makes their senders wait
/// ([`enqueue`](Self::enqueue), [`deliver`](Self::deliver)).
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    /// One permit for each place in the queue.
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    workers: usize,
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

    /// Starts to describe a client.
    pub fn builder(url: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(url.as_ref())
    }

    /// Starts the workers. Starting again, or after a stop, has no effect.
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime: the workers run on the current one.
    pub fn start(&self) {
        self.inner.pool.start(|| {
            for _ in 0..self.inner.workers {
                self.inner
                    .tasks
                    .spawn(pool::work(Arc::clone(&self.inner.pool)));
            }
        });
    }

    /// Queues a message and returns at once. Whatever happens to it later is reported to the error
    /// callback alone.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message when the client is not started, or stopped, or the queue is
    /// full.
    pub fn notify(&self, message: impl Into<Message>) -> Result<(), NotifyError> {
        let room = Arc::clone(&self.inner.room).try_acquire_owned().ok();
        self.inner.pool.accept(message.into(), room, None)
    }

    /// Queues a message, waiting for room. Those who wait are served in turn.
    ///
    /// # Errors
    ///
    /// [`NotifyError::NotStarted`], [`NotifyError::Stopped`], with the message.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the message was either queued or not; it is never queued in
    /// part. A caller that has to know keeps a clone and asks by id at the receiver.
    pub async fn enqueue(&self, message: impl Into<Message> + Send) -> Result<(), NotifyError> {
        let message = message.into();
        let room = Arc::clone(&self.inner.room).acquire_owned().await.ok();
        self.inner.pool.accept(message, room, None)
    }

    /// Queues a message, waiting for room, and waits for its final outcome. A failure is returned
    /// here and not reported to the error callback.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] with the message and every attempt.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before the message is queued, nothing is sent. Later, the
    /// delivery goes on, and its failure is reported to the error callback.
    pub async fn deliver(
        &self,
        message: impl Into<Message> + Send,
    ) -> Result<Receipt, DeliveryError> {
        let message = message.into();
        let room = Arc::clone(&self.inner.room).acquire_owned().await.ok();
        let (reply, outcome) = oneshot::channel();
        let failed = |message, cause| Err(DeliveryError::new(message, Vec::new(), cause));
        match self.inner.pool.accept(message.clone(), room, Some(reply)) {
            Ok(()) => {}
            Err(NotifyError::NotStarted(message)) => {
                return failed(message, DeliveryErrorCause::NotStarted);
            }
            Err(error) => return failed(error.into_message(), DeliveryErrorCause::Abandoned),
        }
        match outcome.await {
            Ok(outcome) => outcome,
            // The runtime of the workers is gone.
            Err(_) => failed(message, DeliveryErrorCause::Abandoned),
        }
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    ///
    /// Retries go on by their schedule, so this takes as long as the retry policy allows; an open
    /// circuit is not waited for, and fails what meets it. [`stop_within`](Self::stop_within) sets
    /// a limit. Stopping is final; stopping again waits for the same end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the client stopping.
    pub async fn stop(&self) {
        self.begin_stop();
        self.inner.tasks.wait().await;
    }

    /// Stops like [`stop`](Self::stop), but gives up after a time: attempts under way are dropped,
    /// and the messages without a final outcome are reported to the error callback as
    /// [`Abandoned`](DeliveryErrorCause::Abandoned) and returned.
    ///
    /// An attempt that is dropped may have reached the endpoint.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the client stopping, without the limit.
    pub async fn stop_within(&self, limit: Duration) -> Vec<Message> {
        self.begin_stop();
        if timeout(limit, self.inner.tasks.wait()).await.is_err() {
            self.inner.pool.abort();
            self.inner.tasks.wait().await;
        }
        self.inner.pool.abandon_rest();
        self.inner.pool.take_abandoned()
    }

    /// How many messages are queued or wait for their next attempt.
    pub fn queued(&self) -> usize {
        self.inner.pool.queued()
    }

    /// The state of the circuit breaker, when there is one.
    pub fn circuit_state(&self) -> Option<CircuitState> {
        self.inner.pool.circuit_state()
    }

    fn begin_stop(&self) {
        self.inner.pool.begin_stop();
        self.inner.room.close();
        self.inner.tasks.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The workers report what they hold as they end; the rest is reported here.
        self.pool.abort();
        self.pool.abandon_rest();
    }
}
