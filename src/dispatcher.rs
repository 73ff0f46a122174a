//! The client of many endpoints: one pool of workers, and a lane for each endpoint.

mod builder;
mod endpoint_id;
mod lane_config;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

pub use builder::DispatcherBuilder;
pub use endpoint_id::EndpointId;
pub use lane_config::LaneConfig;

use crate::pool::{Lane, LaneParts, LaneStatus, Places, Pool, Receipt, Refused};
use crate::{ConfigError, DeliveryError, Endpoint, Message, NotifyError};

/// Sends messages to many endpoints in the background, so that a bad one harms only itself.
///
/// Each endpoint has a **lane**: a queue of its own, a limit on the attempts under way that adapts
/// to how the endpoint is doing, a [retry budget](crate::RetryBudget) and a
/// [circuit breaker](crate::circuit_breaker). All lanes share the workers:
///
/// ```text
///  lane a  ▒▒▒▒▒▒▒▒ ─┐
///  lane b  ▒ ────────┼─ round robin ──▶ workers ──▶ endpoints
///  lane c  ▒▒▒ ──────┘  over the lanes that may go
/// ```
///
/// # Who gets the workers
///
/// The lanes that may go take turns, and a turn is one attempt. What a turn may cost depends on
/// how long the endpoint keeps a worker, its lane's [`Standing`](crate::Standing):
///
/// | standing | the lane's attempts |
/// |---|---|
/// | quick: the last one ended within a second | may have every worker |
/// | new: none has ended yet | have at most half of the workers, all new lanes together |
/// | slow: the last one took longer, or one under way does | have no worker: they run beside them, and their number is [limited](DispatcherBuilder::max_slow) |
///
/// An attempt that turns out to be slow gives its worker back after that second and goes on beside
/// the others. So endpoints that never answer cost a worker for a second each, once, and after
/// that nothing that a quick endpoint wants. Only when more attempts are slow than the limit allows
/// do they keep the workers that they have.
///
/// Within a lane the limit on attempts under way begins at 1, doubles while answers come in time,
/// is halved by every failure, and falls back to 1 when an answer is overdue. A second limit holds
/// for all lanes with the same [host](DispatcherBuilder::max_in_flight_per_host).
///
/// # Endpoints that are gone
///
/// An endpoint that answers `410 Gone` gets nothing more: the message that was answered so fails,
/// what waited for the endpoint fails as [`Gone`](crate::DeliveryErrorCause::Gone), and all of it
/// is reported to the error callback, which is where to keep it for a replay. Attempts under way
/// are finished, and not repeated. The [callback for it](DispatcherBuilder::on_gone) is told first,
/// new messages are [refused](NotifyError::Gone), and
/// [`LaneStatus::is_gone`](crate::LaneStatus::is_gone) says so until the endpoint is
/// [inserted](Self::insert) again or removed.
///
/// # Pauses
///
/// `Retry-After` on a 429 or 503 response pauses the whole lane for that time, at most a day. What
/// waits goes on waiting, as far as its retry policy's maximum age allows; without a retry policy
/// it fails as [`RetryAfter`](crate::DeliveryErrorCause::RetryAfter), without an attempt.
///
/// # Bounds
///
/// A lane's queue holds the messages that are queued and those that wait for their next attempt.
/// All queues together are [bounded](DispatcherBuilder::queue_size) as well. A queued message takes
/// less than 256 bytes besides its body.
///
/// ```
/// use tidings::{Dispatcher, Endpoint};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let dispatcher = Dispatcher::builder()
///     .on_error(|endpoint, error| eprintln!("{endpoint}: {error}"))
///     .build()?;
/// dispatcher.insert("billing", Endpoint::new("https://billing.example.com/hooks")?)?;
/// dispatcher.insert("search", Endpoint::new("https://search.example.com/hooks")?)?;
/// dispatcher.start();
///
/// dispatcher.notify("billing", "invoice paid")?;
/// let receipt = dispatcher.deliver("search", "page changed").await?;
/// println!("delivered after {} attempts", receipt.attempts.len());
/// dispatcher.stop().await;
/// # Ok(()) }
/// ```
///
/// Clones share everything. When the last one is dropped without a stop, attempts under way are
/// dropped, and every message that is left is reported to the error callback.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    /// One permit for each free place in all queues together.
    places: Arc<Semaphore>,
    lane: LaneConfig,
}

impl Dispatcher {
    /// Starts to describe a dispatcher.
    pub fn builder() -> DispatcherBuilder {
        DispatcherBuilder::default()
    }

    /// Starts the workers. Starting again, or after a stop, has no effect.
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime: the workers run on the current one.
    pub fn start(&self) {
        self.inner.pool.start();
    }

    /// Adds an endpoint with the dispatcher's [lane settings](DispatcherBuilder::lane), or changes
    /// one: its next attempt uses the new settings, and what waits for it stays. One that is gone
    /// gets messages again. Whether it was added.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which the builder has ruled out for lane settings that passed it.
    pub fn insert(
        &self,
        id: impl Into<EndpointId>,
        endpoint: Endpoint,
    ) -> Result<bool, ConfigError> {
        let default = self.inner.lane.parts()?;
        let places = self.inner.lane.queue_size();
        Ok(self.upsert(&id.into(), endpoint, None, default, places))
    }

    /// Adds or changes an endpoint like [`insert`](Self::insert), and its lane's settings too.
    ///
    /// The circuit and the budget of a lane begin anew only if their settings differ from before.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting that is out of its range.
    pub fn insert_with(
        &self,
        id: impl Into<EndpointId>,
        endpoint: Endpoint,
        lane: &LaneConfig,
    ) -> Result<bool, ConfigError> {
        let (parts, default) = (lane.parts()?, lane.parts()?);
        Ok(self.upsert(
            &id.into(),
            endpoint,
            Some(parts),
            default,
            lane.queue_size(),
        ))
    }

    /// Removes an endpoint. What waits for it fails as
    /// [`Removed`](crate::DeliveryErrorCause::Removed), is reported, and is returned. Attempts
    /// under way are finished, and not repeated. `None` when there is no such endpoint.
    pub fn remove(&self, id: impl AsRef<str>) -> Option<Vec<Message>> {
        self.inner.pool.remove(id.as_ref())
    }

    /// The endpoints, in no order.
    pub fn endpoints(&self) -> Vec<EndpointId> {
        self.inner.pool.ids()
    }

    /// How the lane of an endpoint is doing.
    pub fn status(&self, id: impl AsRef<str>) -> Option<LaneStatus> {
        self.inner.pool.status(id.as_ref())
    }

    /// Queues a message for an endpoint and returns at once. Its outcome is reported to the
    /// callbacks for [delivered](DispatcherBuilder::on_delivered) and for
    /// [failed](DispatcherBuilder::on_error) messages alone.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message when the endpoint is not known or is gone, its queue or all
    /// queues together are full, or the dispatcher is not started or is stopped.
    pub fn notify(
        &self,
        endpoint: impl AsRef<str>,
        message: impl Into<Message>,
    ) -> Result<(), NotifyError> {
        let (endpoint, message) = (endpoint.as_ref(), message.into());
        match self.inner.pool.places(endpoint) {
            Ok(places) => (self.inner.pool)
                .accept(endpoint, message, places.try_take(), None)
                .map_err(|(refused, message)| refused.hand_back(message)),
            Err(refused) => Err(refused.hand_back(message)),
        }
    }

    /// Queues a message for an endpoint, waiting for room. Those who wait for the same endpoint are
    /// served in turn.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message, except [`NotifyError::QueueFull`]. An endpoint that is
    /// removed meanwhile is not known.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the message was either queued or not; it is never queued in
    /// part.
    pub async fn enqueue(
        &self,
        endpoint: impl AsRef<str> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<(), NotifyError> {
        self.put(endpoint.as_ref(), message.into(), None).await
    }

    /// Queues a message for an endpoint, waiting for room, and waits for its final outcome. A
    /// failure is returned here and not reported to the error callback.
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
        endpoint: impl AsRef<str> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Receipt, DeliveryError> {
        let message = message.into();
        let (reply, outcome) = oneshot::channel();
        self.put(endpoint.as_ref(), message.clone(), Some(reply))
            .await?;
        // Without an outcome, the runtime of the workers is gone.
        outcome
            .await
            .unwrap_or_else(|_| Err(NotifyError::Stopped(message).into()))
    }

    /// Opens the circuit of an endpoint by hand: nothing is sent to it, not even a probe, until
    /// [`close_circuit`](Self::close_circuit). Attempts under way are finished. Whether there is
    /// such an endpoint and it has a circuit breaker.
    ///
    /// What waits for the endpoint goes on waiting, for as long as its retry policy's maximum age
    /// allows; without a retry policy it fails.
    pub fn open_circuit(&self, id: impl AsRef<str>) -> bool {
        self.inner.pool.switch_circuit(id.as_ref(), true)
    }

    /// Closes the circuit of an endpoint by hand, and forgets the failures that it has counted.
    /// Whether there is such an endpoint and it has a circuit breaker.
    pub fn close_circuit(&self, id: impl AsRef<str>) -> bool {
        self.inner.pool.switch_circuit(id.as_ref(), false)
    }

    /// How many messages are queued or wait for their next attempt, for all endpoints together.
    pub fn queued(&self) -> usize {
        self.inner.pool.queued()
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    ///
    /// Retries go on by their schedule and their budget, so this takes as long as they allow; open
    /// circuits are not waited for, and fail what meets them. [`stop_within`](Self::stop_within)
    /// sets a limit. Stopping is final; stopping again waits for the same end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the dispatcher stopping.
    pub async fn stop(&self) {
        self.begin_stop();
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
    /// Dropping the future leaves the dispatcher stopping, without the limit.
    pub async fn stop_within(&self, limit: Duration) -> Vec<(EndpointId, Message)> {
        self.begin_stop();
        self.inner.pool.stop_within(limit).await
    }

    fn begin_stop(&self) {
        // In this order, so that those who are sent away learn the true reason.
        self.inner.pool.begin_stop();
        self.inner.places.close();
    }

    fn upsert(
        &self,
        id: &EndpointId,
        endpoint: Endpoint,
        change: Option<LaneParts>,
        default: LaneParts,
        queue_size: usize,
    ) -> bool {
        let all = Arc::clone(&self.inner.places);
        self.inner.pool.upsert(id, endpoint, change, |endpoint| {
            let places = Places::new(queue_size, Some(all));
            Lane::new(id.clone(), endpoint, places, default)
        })
    }

    async fn put(
        &self,
        endpoint: &str,
        message: Message,
        reply: Option<crate::pool::Reply>,
    ) -> Result<(), NotifyError> {
        let places = match self.inner.pool.places(endpoint) {
            Ok(places) => places,
            Err(refused) => return Err(refused.hand_back(message)),
        };
        let room = places.take().await;
        self.inner
            .pool
            .accept(endpoint, message, room, reply)
            .map_err(|(refused, message)| match refused {
                // The queue was closed while the message waited for a place: its lane was removed,
                // and another has its name.
                Refused::Full => Refused::UnknownEndpoint.hand_back(message),
                refused => refused.hand_back(message),
            })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.abort();
    }
}
