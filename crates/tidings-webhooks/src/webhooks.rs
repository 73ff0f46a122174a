use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tidings::signing::Secret;
use tidings_notify::Payload;
use tidings_stream::{Retention, StreamName, Streams};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::fan_out::leader::Leader;
use crate::fan_out::{self, FanOut, STREAM, UNREADABLE};
use crate::lanes::{Shared, Task, ToDisable};
use crate::store::{Addressed, NewReplay};
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, EndpointHealth, EndpointId, Error, Format,
    Options, Store, StoreError, WebhookEvent, endpoint, replay, telemetry,
};

mod manage;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod operation;
mod reseal;

pub use manage::{MAX_OVERLAP, NewEndpoint, PreparedEndpoint, SetEnabled};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use operation::{Operation, OperationOutcome};

/// Webhooks over a store: accepting events, sending them, and everything about endpoints.
///
/// Each instance of an application starts one; those over one store share the work. Clones share
/// everything. When the last one is dropped without a [stop](Self::stop_within), attempts under way
/// are dropped, and other instances take the lanes over when their leases end.
#[derive(Debug, Clone)]
pub struct Webhooks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    streams: Streams,
    stream: StreamName,
    clock: Clock,
    lanes: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    leader: AbortOnDropHandle<()>,
    leading: CancellationToken,
    _feeders: DropGuard,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What a stop left behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// Attempts that were broken off. Their deliveries are pending and come again.
    pub abandoned_attempts: usize,
    /// Outcomes that the store did not take. Their deliveries come again.
    pub unwritten_outcomes: usize,
}

/// How far the making of deliveries is behind the accepting of events, in all instances together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FanOutLag {
    /// Messages with accepted events whose deliveries are not all made. A message has the events of one transaction.
    pub messages: u64,
    /// How long ago the oldest of them was accepted; `None` if there is none.
    pub age: Option<Duration>,
}

/// Endpoints that wait to be disabled.
const DISABLING: usize = 1024;

/// How many accepted events the stream keeps that have become deliveries, and are of no more use. The more,
/// the more of them one trim removes.
const KEPT: u64 = 10_000;

/// What one step of cleaning removes.
const CLEANED_AT_ONCE: usize = 500;

impl Webhooks {
    /// Starts to make deliveries of accepted events, and to send those that are due.
    ///
    /// To accept events in your own transactions (`sqlite::accept_in`, `postgres::accept_in`), `streams`
    /// must use the store's database; for [`accept`](Self::accept) any engine will do. A SQLite store whose file is not
    /// that of the streams waits for the disk before a message is acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for the options, [`Error::Store`] and [`Error::Stream`].
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime: the tasks run on the current one. When that ends, what is accepted waits in
    /// the store, as after a [stop](Self::stop_within).
    pub async fn start(
        store: Arc<dyn Store>,
        streams: Streams,
        options: Options,
    ) -> Result<Self, Error> {
        Self::boxed_start(store, streams, options).await
    }

    /// The body of an `async fn` is compiled in each crate that awaits it; a box, and the tasks that begin in it, in this one.
    fn boxed_start(
        store: Arc<dyn Store>,
        streams: Streams,
        options: Options,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Error>> + Send>> {
        Box::pin(async move {
            store.acknowledged_in(streams.file());
            let clock = Clock::new(options.wall.clone());
            match store.advance_clock(clock.now()).await {
                Ok(now) => clock.catch_up(now),
                // A process must be able to start on a full disk. The time is stored with the next leases.
                Err(error @ StoreError::Full(_)) => starts_on_full(&error),
                Err(error) => return Err(error.into()),
            }
            let keys = options.encryption.clone();
            let (disabling, to_disable) = mpsc::channel(DISABLING);
            let lanes = Shared::new(Arc::clone(&store), clock.clone(), &options, disabling)?;
            // Zero is no bound.
            let age = options.max_event_age.unwrap_or_default();
            let by_age = Retention::default().with_max_age(age);
            for (stream, retention) in [(STREAM, by_age.with_max_len(KEPT)), (UNREADABLE, by_age)] {
                match streams.set_retention(stream, retention).await {
                    // An earlier run has stored it, unless there is no group either, which ends the start.
                    Err(error @ tidings_stream::Error::Full(_)) => starts_on_full(&error),
                    other => other?,
                }
            }
            let fan_out = FanOut::new(Arc::clone(&store), clock.clone(), Arc::clone(&lanes));
            let leading = CancellationToken::new();
            let leader = Leader {
                fan_out: Arc::new(fan_out),
                streams: streams.clone(),
                closing: leading.clone(),
            };
            leader.prepare().await?;
            let webhooks = Self {
                inner: Arc::new(Inner {
                    store,
                    stream: streams.name(STREAM)?,
                    streams,
                    clock,
                    lanes,
                    running: Mutex::default(),
                }),
            };
            let mut tasks = webhooks.inner.lanes.tasks();
            let disabling = disable(Arc::downgrade(&webhooks.inner), to_disable);
            tasks.push(Box::pin(disabling));
            let resealing = reseal::run(Arc::clone(&webhooks.inner.store), keys);
            tasks.push(Box::pin(resealing));
            let leading_task: Task = Box::pin(leader.run());
            let spawn = |task: Task| AbortOnDropHandle::new(tokio::spawn(task));
            *webhooks.running() = Some(Running {
                leader: spawn(leading_task),
                leading,
                _feeders: webhooks.inner.lanes.abort_on_drop(),
                _tasks: tasks.into_iter().map(spawn).collect(),
            });
            Ok(webhooks)
        })
    }

    /// The stream that accepted events go to: for accepting in a transaction.
    pub fn stream(&self) -> &StreamName {
        &self.inner.stream
    }

    /// Makes the fan-out read the stream. Call it after the commit of a transaction in which events were
    /// accepted.
    pub fn wake(&self) {
        self.inner.streams.wake(&self.inner.stream);
    }

    /// Accepts events: `Ok` means that they will reach their endpoints. When no endpoint can want
    /// one of them, nothing is written.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Stream`]; then none of them is accepted.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have accepted the events, never a part of them.
    pub async fn accept(&self, events: Vec<WebhookEvent>) -> Result<(), Error> {
        let users: Vec<_> = events
            .iter()
            .filter_map(WebhookEvent::user)
            .cloned()
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        let newest_endpoint = self.inner.store.newest_endpoint_if_wanted(&users).await?;
        let Some(newest_endpoint) = newest_endpoint else {
            return Ok(());
        };
        let messages =
            fan_out::message::write(&events, newest_endpoint).map_err(StoreError::backend)?;
        self.inner.streams.publish_batch(STREAM, messages).await?;
        Ok(())
    }

    /// How far the making of deliveries is behind the accepting of events.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn fan_out_lag(&self) -> Result<FanOutLag, Error> {
        let stats = self.inner.streams.stats(STREAM).await?;
        let mut groups = stats.groups.iter();
        let group = groups.find(|group| group.name.as_str() == fan_out::GROUP);
        Ok(group.map_or_else(FanOutLag::default, |group| FanOutLag {
            messages: group.lag + group.pending,
            age: group.lag_time,
        }))
    }

    /// The health of an endpoint; `None` when there is no such endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn health(&self, id: EndpointId) -> Result<Option<EndpointHealth>, Error> {
        if self.inner.store.endpoint(id).await?.is_none() {
            return Ok(None);
        }
        let stored = self.inner.store.health(id).await?;
        Ok(Some(EndpointHealth {
            circuit: self.inner.lanes.circuit(id),
            pending: stored.pending,
            last_success_at: stored.last_success_at,
            last_failure_at: stored.last_failure_at,
            success_rate: stored.success_rate(),
            replay: stored.replay,
        }))
    }

    /// Lists deliveries, the newest first.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, Error> {
        let mut found = self.inner.store.deliveries(query).await?;
        self.show(&mut found).await?;
        Ok(found)
    }

    /// Finds a delivery.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, Error> {
        let mut found = self.inner.store.delivery(id).await?;
        self.show(found.as_mut_slice()).await?;
        Ok(found)
    }

    /// The attempts of a delivery, in order; `None` when there is no such delivery.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn attempts(&self, id: DeliveryId) -> Result<Option<Vec<AttemptRecord>>, Error> {
        Ok(self.inner.store.attempts(id).await?)
    }

    /// The body of the requests of a delivery, in the present format of its endpoint; of an endpoint that is removed,
    /// as an envelope. `None` when there is no such delivery, or its event is not stored any more.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], also if the event cannot be read.
    pub async fn body(&self, id: DeliveryId) -> Result<Option<String>, Error> {
        let Some(sent) = self.inner.store.sent_event(id).await? else {
            return Ok(None);
        };
        let endpoint = self.endpoint(sent.endpoint).await?;
        let format = endpoint.map_or(Format::Envelope, |endpoint| endpoint.settings.format);
        let message = sent.event.render(format).map_err(StoreError::backend)?;
        let body = String::from_utf8(message.body().to_vec()).map_err(StoreError::backend)?;
        Ok(Some(body))
    }

    /// Sends a delivery again, at once and then by its schedule from the beginning. Its state, and a block
    /// of its endpoint, do not matter. `None` when there is no such delivery, or its
    /// endpoint is disabled or removed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn retry(&self, id: DeliveryId) -> Result<Option<Delivery>, Error> {
        let now = self.inner.clock.now();
        match self.inner.store.retry_delivery(id, now).await? {
            Some(endpoint) => {
                // As it is now, and not as the next attempt leaves it: due, and not blocked any more.
                let delivery = self.inner.store.delivery(id).await;
                self.inner.lanes.unblock(endpoint);
                let mut delivery = delivery?;
                if let Some(delivery) = &mut delivery {
                    self.inner.clock.show(delivery);
                }
                Ok(delivery)
            }
            None => Ok(None),
        }
    }

    /// Sends events of a range of time to an endpoint that did not get them: failed and cancelled
    /// deliveries, and events that were accepted while the endpoint was disabled. Events from before it was created,
    /// and tests, are never sent; which of the others it gets is decided by its present filter. It replaces an earlier
    /// replay. Returns whether there is such an endpoint and it is enabled.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for the rate, [`Error::Store`].
    pub async fn replay(&self, id: EndpointId, replay: replay::Replay) -> Result<bool, Error> {
        let replay = self.checked_replay(id, replay).await?;
        let now = self.inner.clock.now();
        let has_begun = self.inner.store.start_replay(replay, now).await?;
        if has_begun {
            self.inner.lanes.wake([id]);
        }
        Ok(has_begun)
    }

    /// The replay from the creation of the endpoint on, if there is such an endpoint.
    async fn checked_replay(
        &self,
        id: EndpointId,
        replay: replay::Replay,
    ) -> Result<NewReplay, Error> {
        let mut replay = replay.checked(id, self.inner.clock.wall.now())?;
        if let Some(stored) = self.inner.store.endpoint(id).await? {
            replay.since = replay.since.max(stored.created_at);
        }
        Ok(replay)
    }

    /// Stops the replay to an endpoint. What it has made due is still sent: about as much as it sends in a second,
    /// or more if the endpoint is slower than the replay. Returns whether one was under way. Disabling an
    /// endpoint stops its replay, too, and cancels what is due.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn stop_replay(&self, id: EndpointId) -> Result<bool, Error> {
        Ok(self.inner.store.stop_replay(id).await?)
    }

    /// Sends a `tidings.test` event to an endpoint, also if it does not want this type. `None` when
    /// there is no such endpoint or it is disabled.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn send_test(&self, id: EndpointId) -> Result<Option<DeliveryId>, Error> {
        let Some(addressed) = self.test_event(id).await? else {
            return Ok(None);
        };
        let at = self.inner.clock.wall.now();
        let event: Arc<[Addressed]> = Arc::new([addressed]);
        let added = self.inner.store.add_deliveries(event, at).await?;
        self.inner.lanes.wake([id]);
        Ok(added.deliveries.into_iter().flatten().next())
    }

    /// The event that tests an endpoint; `None` when there is no such endpoint or it is disabled.
    async fn test_event(&self, id: EndpointId) -> Result<Option<Addressed>, Error> {
        let stored = self.inner.store.endpoint(id).await?;
        let Some(stored) = stored.filter(|stored| stored.disabled.is_none()) else {
            return Ok(None);
        };
        let payload = Payload::from_value(&serde_json::json!({ "endpoint_id": id }))
            .map_err(StoreError::backend)?;
        let mut event = WebhookEvent::of_type(endpoint::TEST_EVENT.to_owned(), payload);
        event.user = stored.owner.user().cloned();
        Ok(Some(Addressed {
            event,
            to: vec![(id, self.inner.clock.now())],
        }))
    }

    /// How many deliveries wait, and accepted events whose deliveries are yet to be made because they
    /// are many; each counted up to [`MAX_COUNTED`](crate::MAX_COUNTED).
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn pending(&self) -> Result<u64, Error> {
        Ok(self.inner.store.count_pending().await?)
    }

    /// Deletes deliveries that ended before `cutoff`, with their attempts, and events that were
    /// accepted before it and have no delivery. Returns how many. Works in bounded steps, between which
    /// other calls get their turn.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; a part of them may be gone then.
    pub async fn clean(&self, cutoff: Timestamp) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let count = self.inner.store.clean(cutoff, CLEANED_AT_ONCE).await?;
            total += count as u64;
            if count == 0 {
                return Ok(total);
            }
        }
    }

    /// Stops: makes no more deliveries, finishes the attempts under way until the limit, writes
    /// their outcomes, and gives every lane back at once. What waits stays in the store. Stopping is
    /// final; stopping again does nothing.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the webhooks stopping; lanes may have to wait for the end of their
    /// leases.
    pub async fn stop_within(&self, limit: Duration) -> StopReport {
        let Some(running) = self.running().take() else {
            return StopReport::default();
        };
        let began = Instant::now();
        running.leading.cancel();
        // A batch that is not done until then is made again: by another instance, or the next run.
        if tokio::time::timeout(limit, running.leader).await.is_err() {
            tracing::warn!(
                "stopping although deliveries of new events are still being made, which the next start or another instance repeats"
            );
        }
        let left = limit.saturating_sub(began.elapsed());
        let (abandoned_attempts, unwritten_outcomes) = self.inner.lanes.stop(left).await;
        StopReport {
            abandoned_attempts,
            unwritten_outcomes,
        }
    }

    async fn show(&self, deliveries: &mut [Delivery]) -> Result<(), Error> {
        self.inner.lanes.explain_waits(deliveries).await?;
        for delivery in deliveries {
            self.inner.clock.show(delivery);
        }
        Ok(())
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        // Nothing that can panic runs under the lock.
        let lock = self.inner.running.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

fn starts_on_full(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "starting although the store is full");
}

/// Disables endpoints that are gone or have failed for too long.
async fn disable(inner: std::sync::Weak<Inner>, mut endpoints: mpsc::Receiver<ToDisable>) {
    while let Some(to_disable) = endpoints.recv().await {
        loop {
            // Not held in a pause: dropping the last `Webhooks` ends this task.
            let Some(inner) = inner.upgrade() else { return };
            match (Webhooks { inner })
                .disable_unless_changed(to_disable)
                .await
            {
                Ok(was_disabled) => {
                    if was_disabled {
                        telemetry::endpoint_disabled();
                    }
                    break;
                }
                Err(Error::Unreadable(_)) => break,
                Err(Error::Store(StoreError::Closed)) => return,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    endpoint = %to_disable.endpoint,
                    "an endpoint cannot be disabled, trying again"
                ),
            }
            tokio::time::sleep(DISABLING_PAUSE).await;
        }
    }
}

/// The pause after a failure of the store.
const DISABLING_PAUSE: Duration = Duration::from_secs(1);

/// A new secret, unless the caller has one.
fn secret_or_new(secret: Option<Secret>) -> Secret {
    secret.unwrap_or_else(Secret::generate)
}
