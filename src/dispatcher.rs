//! The client of many endpoints: one pool of workers, and a lane for each endpoint.

mod builder;
mod lane_config;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use builder::DispatcherBuilder;
pub use lane_config::LaneConfig;
pub use status::{LaneStatus, Speed};

use crate::pool::{Awaited, LaneSettings, Outcome, Pool, QueuePermit, QueueSpace};
use crate::telemetry::Span;
use crate::{
    Closed, ConfigError, Delivered, DeliveryError, Endpoint, EndpointId, Message, NotifyError,
    Refusal,
};

/// Sends messages to many endpoints in the background. A failing endpoint does not delay the others.
///
/// Each endpoint has a **lane**: a queue of its own, a limit on the attempts under way that adapts
/// to how the endpoint is doing, a [retry budget](crate::retry::RetryBudget) and a
/// [circuit breaker](crate::circuit_breaker). All lanes share the workers:
///
/// ```text
///  lane a  ▒▒▒▒▒▒▒▒ ─┐
///  lane b  ▒ ────────┼─ round robin ──▶ workers ──▶ endpoints
///  lane c  ▒▒▒ ──────┘  over the lanes that may go
/// ```
///
/// # Which lane gets the workers
///
/// The lanes that may go take turns, and a turn is one attempt. What a turn may cost depends on
/// how long the endpoint keeps a worker, the [`Speed`](crate::Speed) of its lane:
///
/// | speed | the lane's attempts |
/// |---|---|
/// | quick: of the last eight attempts and those under way, at most one took longer than a second | may have every worker |
/// | new: none has ended yet | have at most half of the workers, all new lanes together |
/// | slow: two of them took longer; for a new lane, one | have no worker: they run beside the workers, and their number is [limited](DispatcherBuilder::max_slow) |
///
/// An attempt that turns out to be slow gives its worker back after that second and continues beside
/// the others. So an endpoint that does not reply keeps a worker for a second, twice if it replied
/// before, and after that none. Only when more attempts are slow than
/// the limit allows do they keep the workers that they have.
///
/// Within a lane the limit on attempts under way begins at 1, doubles while responses arrive in
/// time, is halved by every failure, and falls back to 1 when a response is overdue. A second limit
/// holds for all lanes with the same [host](DispatcherBuilder::max_in_flight_per_host), a third one, if
/// it is set, for the [rate](LaneConfig::with_rate_limit), and a fourth for all lanes of a
/// [group](LaneConfig::with_group), if they are in one.
///
/// # Endpoints that are gone
///
/// An endpoint that replies `410 Gone` gets nothing more: the message with this reply fails, what
/// waits for the endpoint fails as [`Gone`](crate::DeliveryErrorCause::Gone), and all of it is
/// reported to the error callback, which can keep it for a replay. Attempts under way are finished,
/// and not repeated. The [callback for it](DispatcherBuilder::on_gone) is called first, new messages
/// are [refused](Refusal::Gone), and [`LaneStatus::is_gone`] is true until the endpoint is
/// [inserted](Self::insert) again or removed.
///
/// # Pauses
///
/// `Retry-After` on a 429 or 503 response pauses the whole lane for that time, at most a day. What
/// waits keeps waiting, as far as its retry policy's maximum age allows; without a retry policy
/// it fails as [`RetryAfter`](crate::DeliveryErrorCause::RetryAfter), without an attempt. A pause of
/// more than a minute is logged and [counted](crate::telemetry::ENDPOINT_PAUSED);
/// [`status`](Self::status) shows its end, and [`unblock`](Self::unblock) ends it.
///
/// # Bounds
///
/// A lane's queue holds the messages that are queued and those that wait for their next attempt.
/// All queues together are [bounded](DispatcherBuilder::queue_size) as well. A quarter of that is
/// reserved: a lane may hold no more than 16 of the reserved places. So a hundred lanes with failing
/// endpoints and full queues do not keep the messages of the others out. [`Message`] says how much
/// memory each takes.
///
/// ```
/// use tidings::{Dispatcher, Endpoint};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let dispatcher = Dispatcher::builder()
///     .on_error(|endpoint, error| eprintln!("{endpoint}: {error}"))
///     .build()?;
/// dispatcher.insert("billing", Endpoint::new("https://billing.example.com/hooks")?);
/// dispatcher.insert("search", Endpoint::new("https://search.example.com/hooks")?);
/// dispatcher.start();
///
/// dispatcher.notify("billing", "invoice paid")?;
/// let delivered = dispatcher.deliver("search", "page changed").await?;
/// println!("delivered after {} attempts", delivered.attempts.len());
/// dispatcher.stop().await;
/// # Ok(()) }
/// ```
///
/// Clones share everything. When the last one is dropped without a stop, or the runtime that
/// [`start`](Self::start) was called on ends, attempts under way are dropped, and every message that
/// is left is reported to the error callback. A callback that owns a clone keeps the dispatcher
/// alive: give it something weaker, or a channel.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    /// The places of all queues together.
    space: Arc<QueueSpace>,
    /// For endpoints without settings of their own.
    lane: LaneSettings,
}

impl Dispatcher {
    /// Returns a builder for a dispatcher.
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
    /// one: its next attempt uses the new settings, and what waits for it stays. An endpoint that is
    /// gone gets messages again. Returns `true` if it was added.
    ///
    /// A changed URL is a new destination: its circuit is closed, unless it was opened by hand, the
    /// limit on attempts under way starts again, and so does what is known of its [speed](crate::Speed).
    /// Attempts that are under way at the old URL count no more.
    pub fn insert(&self, id: impl Into<EndpointId>, endpoint: Endpoint) -> bool {
        let settings = self.inner.lane.clone();
        (self.inner.pool).insert(&id.into(), endpoint, settings, &self.inner.space, false)
    }

    /// Adds or changes an endpoint like [`insert`](Self::insert), and its lane's settings too.
    ///
    /// The circuit, the budget and the rate of a lane start again only if their settings differ from
    /// before.
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
        let settings = lane.settings()?;
        let space = &self.inner.space;
        Ok((self.inner.pool).insert(&id.into(), endpoint, settings, space, true))
    }

    /// Removes an endpoint. What waits for it fails as
    /// [`Removed`](crate::DeliveryErrorCause::Removed), is reported, and is returned. Attempts
    /// under way are finished, and not repeated. Returns `None` if there is no such endpoint.
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

    /// Queues a message for an endpoint and returns at once. Its outcome is reported only to the
    /// callbacks for [delivered](DispatcherBuilder::on_delivered) and for
    /// [failed](DispatcherBuilder::on_error) messages.
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
        let permit = match self.inner.pool.permits(endpoint) {
            Ok(permits) => permits.try_acquire().ok_or(Refusal::QueueFull),
            Err(closed) => Err(closed.into()),
        };
        (self.inner.pool)
            .accept(endpoint, message, permit, None)
            .map_err(|(message, refusal)| NotifyError::refused(message, refusal))
    }

    /// Queues a message for an endpoint and waits for a place in the queue. Calls that wait for the
    /// same endpoint get one in turn.
    ///
    /// # Errors
    ///
    /// [`NotifyError`] with the message, for every reason but [`Refusal::QueueFull`]. An endpoint
    /// that is removed in the meantime is unknown.
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
        let (endpoint, message) = (endpoint.as_ref(), message.into());
        let permit = self.permit(endpoint).await;
        (self.inner.pool)
            .accept(endpoint, message, permit, None)
            .map_err(|(message, closed)| NotifyError::refused(message, closed))
    }

    /// Queues a message for an endpoint, waits for a place in the queue if necessary, and waits for
    /// the final outcome. The outcome is returned here and not reported to a callback.
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
        endpoint: impl AsRef<str> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<Delivered, DeliveryError> {
        let (endpoint, message) = (endpoint.as_ref(), message.into());
        let permit = self.permit(endpoint).await;
        self.inner.pool.deliver(endpoint, message, permit)?.await
    }

    /// Opens the circuit of an endpoint by hand: nothing is sent to it, not even a probe, until
    /// [`close_circuit`](Self::close_circuit). Attempts under way are finished. Returns `false` if
    /// there is no such endpoint, or it has no circuit breaker.
    ///
    /// What waits for the endpoint keeps waiting, for as long as its retry policy's maximum age
    /// allows; without a retry policy it fails.
    pub fn open_circuit(&self, id: impl AsRef<str>) -> bool {
        self.inner.pool.switch_circuit(id.as_ref(), true)
    }

    /// Ends what keeps requests from an endpoint: closes its circuit, as [`close_circuit`](Self::close_circuit) does, and
    /// forgets its `Retry-After`, also for the messages that it was sent for. Returns `false` if there is no such endpoint.
    pub fn unblock(&self, id: impl AsRef<str>) -> bool {
        self.inner.pool.unblock(id.as_ref())
    }

    /// Closes the circuit of an endpoint by hand, and forgets the failures that it has counted.
    /// Returns `false` if there is no such endpoint, or it has no circuit breaker.
    pub fn close_circuit(&self, id: impl AsRef<str>) -> bool {
        self.inner.pool.switch_circuit(id.as_ref(), false)
    }

    /// Continues the circuit of an endpoint where another dispatcher left it, in another process or before a restart:
    /// its circuit was not closed, and its [`next_open_for`](LaneStatus::next_open_for) was this. One message is sent as a
    /// probe at once; if it fails, the circuit is open for that time. A circuit that was opened by hand stays so.
    /// Returns `false` if there is no such endpoint, or it has no circuit breaker.
    pub fn resume_circuit(&self, id: impl AsRef<str>, next_open_for: Duration) -> bool {
        self.inner.pool.resume_circuit(id.as_ref(), next_open_for)
    }

    /// How many messages are queued or wait for their next attempt, for all endpoints together.
    pub fn queued(&self) -> usize {
        self.inner.pool.queued()
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    ///
    /// Retries continue by their schedule and their budget, and attempts by their rate limits, so this
    /// takes as long as these allow. Endpoints have no say in it: open circuits are not waited for,
    /// and a `Retry-After` for five seconds at most; then they fail what they put off.
    /// [`stop_within`](Self::stop_within) sets a limit. Stopping is final; stopping again waits for
    /// the same end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the dispatcher stopping.
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
    /// Dropping the future leaves the dispatcher stopping, without the limit.
    pub async fn stop_within(&self, limit: Duration) -> Vec<(EndpointId, Message)> {
        self.inner.pool.stop_within(limit).await
    }

    /// Queues a message like [`deliver`](Self::deliver) unless there is no free place until a time, and
    /// returns a future that waits for the final outcome.
    pub(crate) async fn deliver_queued_by(
        &self,
        deadline: Instant,
        endpoint: &EndpointId,
        message: Message,
    ) -> Result<Awaited<'_>, DeliveryError> {
        let endpoint = endpoint.as_str();
        let permit = match timeout_at(deadline, self.permit(endpoint)).await {
            Ok(permit) => permit.map_err(Refusal::from),
            Err(_elapsed) => Err(Refusal::QueueFull),
        };
        self.inner.pool.deliver(endpoint, message, permit)
    }

    /// Reports an outcome that a caller of [`deliver`](Self::deliver) got and does not return.
    pub(crate) fn report(&self, endpoint: &EndpointId, outcome: Outcome) {
        self.inner.pool.report(endpoint, outcome, &Span::none());
    }

    async fn permit(&self, endpoint: &str) -> Result<QueuePermit, Closed> {
        // The queue is closed when its lane is removed, whether or not another has its name.
        let permit = self.inner.pool.permits(endpoint)?.acquire().await;
        permit.ok_or(Closed::UnknownEndpoint)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.abort();
    }
}
