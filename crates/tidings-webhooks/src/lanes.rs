//! The lanes of this instance: leased from the store, fed into the dispatcher, given back.
//!
//! ```text
//!             lease loop                    feeder, one a lane            dispatcher
//! store ──▶ lanes that are due ──▶ pages of deliveries that are due ──▶ lanes, workers ──▶ endpoints
//!   ▲                                                                        │
//!   └────────── recorder: outcomes, in batches, until they are written ◀─────┘
//! ```
//!
//! A lane has one instance at a time, so that its endpoint has one circuit breaker, one limit and one
//! order in the whole cluster. In memory it is one page, for a backlog of any length; while its endpoint
//! is blocked it is a row with a time. The lease is renewed by one heartbeat for all lanes of the
//! instance, and ends by itself when the instance has crashed.
//!
//! A lane that has all that is due is handed what the fan-out of this instance makes (`handed.rs`), so that
//! the store is not read for it. One without work has no task: it rests for some seconds (`resting.rs`), also while the
//! dispatcher has what it was handed meanwhile. If as many are served as may be and another is due, those that have rested
//! for longest are given back.

mod feeder;
mod handed;
mod lane;
mod leases;
mod local;
mod outcome;
mod recorder;
mod replay;
mod resting;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::{FxHashMap, FxHashSet};
use tidings::{Attempt, AttemptError, Delivered, DeliveryError, Dispatcher};
use tidings_reconnect::Trouble;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::{Clock, later};
use crate::encryption::SealError;
use crate::store::{AfterAttempt, Outcome, Released};
use crate::target::Defaults;
use crate::{EndpointId, Error, Options, Store, StoreError, telemetry};
use lane::Lane;
use local::LocalTrouble;
use recorder::{Entry, Recorder};
use resting::Resting;

/// What the tasks of an instance share.
pub(crate) struct Shared {
    store: Arc<dyn Store>,
    clock: Clock,
    defaults: Defaults,
    disable_after: Option<Duration>,
    lease: Duration,
    poll_interval: Duration,
    max_lanes: usize,
    /// A name that no other instance has.
    instance: String,
    dispatcher: Dispatcher,
    recorder: Recorder,
    lanes: Mutex<Lanes>,
    /// What the loops of this instance have learned of the store.
    trouble: Mutex<Trouble>,
    /// Whether it is in the log that secrets cannot be decrypted.
    has_sealed: AtomicBool,
    /// Has the lease loop look at once.
    look: Notify,
    /// Tells the one who watches resting lanes that there is one.
    rested: Notify,
    /// No lane is leased any more.
    stopping: CancellationToken,
    /// Ends the feeders where they stand, as a crash would.
    aborting: CancellationToken,
    /// Feeders.
    feeders: TaskTracker,
    /// Endpoints that are to be disabled.
    disabling: tokio::sync::mpsc::Sender<ToDisable>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// Lanes that are served, and those with attempts under way.
    known: FxHashMap<EndpointId, Arc<Lane>>,
    /// Those that this instance serves: it has their leases.
    served: FxHashMap<EndpointId, Arc<Lane>>,
    /// Those of them that have no feeder, because there is nothing to do but to wait for requests.
    resting: FxHashMap<EndpointId, Resting>,
    /// When the first of these has something due, as far as is known.
    resting_due: Option<Timestamp>,
    /// Those that are being given back: the store may still have this instance's lease.
    released: FxHashSet<EndpointId>,
    /// Lanes that the dispatcher has and that are not served, and since when.
    remembered: FxHashMap<EndpointId, Instant>,
    /// Lanes whose attempts this machine could not make.
    local: LocalTrouble,
    /// When the fan-out of this instance has last made deliveries.
    made_at: Option<Instant>,
    /// When the next lane without a lease is due, as far as is known.
    next_due: Option<Timestamp>,
    /// Whether one was due that this instance had no room for: as many were served as may be, and none of them rested.
    lacks_room: bool,
}

/// Work that lasts as long as the instance. Tasks of one type: what the runtime makes of a task is compiled for each type.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An endpoint that is to be disabled, unless it was changed since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToDisable {
    pub(crate) endpoint: EndpointId,
    /// The revision that has failed.
    pub(crate) revision: u64,
    /// In words for a person.
    pub(crate) because: &'static str,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        telemetry::lanes_held(self.served.len(), 0);
    }
}

/// The lanes, locked. How many are served is recorded afterwards, because the recorder is the program's.
struct Locked<'a> {
    lanes: MutexGuard<'a, Lanes>,
    // Dropped after the lock.
    held: Held,
}

/// How many lanes were served when they were locked, and when they were unlocked.
struct Held {
    before: usize,
    after: usize,
}

impl Deref for Locked<'_> {
    type Target = Lanes;

    fn deref(&self) -> &Lanes {
        &self.lanes
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.held.after = self.lanes.served.len();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        telemetry::lanes_held(self.before, self.after);
    }
}

impl Shared {
    /// Logs that the store does not do what a loop needs: once an outage, whatever the number of lanes and loops.
    pub(crate) fn store_failed(
        &self,
        error: &(dyn std::error::Error + 'static),
        what: &'static str,
    ) {
        if self.trouble().failed() {
            tracing::warn!(error, what, "the webhook store does not work, trying again");
        } else {
            tracing::debug!(error, what, "the webhook store does not work");
        }
    }

    /// Logs the end of an outage.
    pub(crate) fn store_worked(&self) {
        if self.trouble().worked() {
            tracing::info!("the webhook store works again");
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // The value is whole after every statement, so a poisoned lock is still right.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs that a key is not there: once, whatever the number of endpoints.
    fn secrets_are_sealed(&self, endpoint: EndpointId, problem: &SealError) {
        let error: &dyn std::error::Error = problem;
        if self.has_sealed.swap(true, Ordering::Relaxed) {
            tracing::debug!(error, %endpoint, "the secrets of an endpoint cannot be decrypted");
        } else {
            tracing::warn!(
                error,
                %endpoint,
                "the secrets of an endpoint, and maybe of others, cannot be decrypted: its webhooks fail and are \
                 tried again by their schedule"
            );
        }
    }

    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        options: &Options,
        disabling: tokio::sync::mpsc::Sender<ToDisable>,
    ) -> Result<Arc<Self>, Error> {
        let defaults = Defaults::new(options)?;
        // The dispatcher is a part of what its callbacks need.
        let slot: Arc<OnceLock<Weak<Self>>> = Arc::default();
        let (of_success, of_failure) = (Arc::clone(&slot), Arc::clone(&slot));
        let shared = |slot: &OnceLock<Weak<Self>>| slot.get().and_then(Weak::upgrade);
        let dispatcher = Dispatcher::builder()
            .workers(options.workers)
            .queue_size(MAX_QUEUED_IN_ALL)
            .sender(defaults.sender.clone())
            .on_delivered(move |key, delivered| {
                if let Some(shared) = shared(&of_success) {
                    shared.delivered(key, &delivered);
                }
            })
            .on_error(move |key, error| {
                if let Some(shared) = shared(&of_failure) {
                    shared.failed(key, &error);
                }
            })
            .build()?;
        let new = Arc::new(Self {
            store,
            clock,
            defaults,
            disable_after: options.disable_after,
            lease: options.lease,
            poll_interval: options.poll_interval,
            max_lanes: options.max_lanes,
            instance: Uuid::now_v7().simple().to_string(),
            dispatcher,
            recorder: Recorder::default(),
            lanes: Mutex::default(),
            trouble: Mutex::default(),
            has_sealed: AtomicBool::new(false),
            look: Notify::new(),
            rested: Notify::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            feeders: TaskTracker::new(),
            disabling,
        });
        // No other task has the slot's other ends yet.
        let _is_first = slot.set(Arc::downgrade(&new));
        new.dispatcher.start();
        Ok(new)
    }

    /// Ends the feeders when it is dropped.
    pub(crate) fn abort_on_drop(&self) -> DropGuard {
        self.aborting.clone().drop_guard()
    }

    /// What this instance is called in leases.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// How long a lease lasts.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// How often to look for work whose wake-up was lost.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The tasks of an instance, to be run until they are dropped.
    pub(crate) fn tasks(self: &Arc<Self>) -> Vec<Task> {
        vec![
            Box::pin(leases::take(Arc::clone(self))),
            Box::pin(leases::renew(Arc::clone(self))),
            Box::pin(resting::watch(Arc::clone(self))),
            Box::pin(recorder::run(Arc::clone(self))),
        ]
    }

    /// Notes that these endpoints have work now.
    pub(crate) fn wake(self: &Arc<Self>, endpoints: impl IntoIterator<Item = EndpointId>) {
        let mut lanes = self.lock();
        let mut is_new = false;
        for endpoint in endpoints {
            match lanes.served.get(&endpoint) {
                Some(served) => {
                    served.add_work();
                    self.resume(&mut lanes, endpoint);
                }
                None => is_new = true,
            }
        }
        if is_new {
            lanes.next_due = Some(self.clock.now());
            drop(lanes);
            self.look.notify_one();
        }
    }

    /// Looks at an endpoint again at once, and ends its block: it was changed, or a caller wants an
    /// attempt.
    pub(crate) fn unblock(self: &Arc<Self>, endpoint: EndpointId) {
        self.dispatcher.unblock(endpoint.to_string());
        let lanes = self.lock();
        if let Some(lane) = lanes.known.get(&endpoint) {
            lane.unblock();
        }
        drop(lanes);
        self.wake([endpoint]);
    }

    /// The state of the circuit of an endpoint, if it is served here.
    pub(crate) fn circuit(&self, endpoint: EndpointId) -> Option<&'static str> {
        use tidings::circuit_breaker::CircuitState;
        let status = self.dispatcher.status(endpoint.to_string())?;
        Some(match status.circuit? {
            CircuitState::Closed => "closed",
            CircuitState::Open => "open",
            CircuitState::HalfOpen => "half_open",
        })
    }

    /// Stops: attempts under way are finished until the deadline, their outcomes are written, and
    /// every lane is given back. Returns how many attempts were abandoned, and how many outcomes
    /// could not be written.
    pub(crate) async fn stop(&self, limit: Duration) -> (usize, usize) {
        let began = Instant::now();
        let left = || limit.saturating_sub(began.elapsed());
        self.stopping.cancel();
        self.feeders.close();
        if timeout(limit, self.feeders.wait()).await.is_err() {
            tracing::warn!("stopping although the webhook store has not replied");
        }
        let keys = self.dispatcher.endpoints();
        // The dispatcher forgets them with the lanes.
        let circuits: HashMap<_, _> = {
            let lanes = self.lock();
            let circuit = |lane: &Arc<Lane>| Some((lane.endpoint, self.circuit_of(lane)?));
            lanes.known.values().filter_map(circuit).collect()
        };
        for key in keys {
            // What is queued stays pending in the store. What is under way is finished.
            self.dispatcher.remove(&key);
        }
        let abandoned = self.dispatcher.stop_within(left()).await.len();
        let unwritten = match timeout(left().max(LAST_WRITES), self.recorder.is_drained()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.recorder.unwritten(),
        };
        let lanes: Vec<_> = {
            let mut lanes = self.lock();
            let mut served: HashSet<_> =
                lanes.served.drain().map(|(endpoint, _)| endpoint).collect();
            // Those that were about to be given back, too.
            served.extend(lanes.released.drain());
            lanes.resting.clear();
            let release = |endpoint| Released {
                endpoint,
                blocked_until: (lanes.known.get(&endpoint)).and_then(|lane| self.block_of(lane)),
                next_open_for: circuits.get(&endpoint).copied(),
            };
            served.into_iter().map(release).collect()
        };
        let released = async {
            for some in lanes.chunks(resting::AT_ONCE) {
                (self.store.release_lanes(&self.instance, some.to_vec())).await?;
            }
            Ok::<_, StoreError>(())
        };
        match timeout(left().max(LAST_WRITES), released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to release the endpoints of this instance, others send to them when its lease has ended"
            ),
            Err(_elapsed) => {
                tracing::warn!(
                    "the webhook store did not reply in time, other instances send to the endpoints of this one when its lease has ended"
                );
            }
        }
        (abandoned, unwritten)
    }

    /// Has an endpoint disabled.
    fn disable(&self, to_disable: ToDisable) {
        let endpoint = to_disable.endpoint;
        // When the queue is full the next failure says so again.
        if self.disabling.try_send(to_disable).is_err() {
            tracing::debug!(%endpoint, "an endpoint will be disabled later");
        }
    }

    fn delivered(&self, key: &tidings::EndpointId, delivered: &Delivered) {
        if let Some(attempt) = delivered.attempts.last() {
            self.attempted(key, delivered.message.id(), attempt);
        }
    }

    fn failed(self: &Arc<Self>, key: &tidings::EndpointId, error: &DeliveryError) {
        let message_id = error.message().id();
        if let Some(attempt) = error.attempts().last() {
            // Kept in the store, too, when the lane is given back: for other instances, and for the time after a restart.
            if let Some((lane, until)) = self.lane(key).zip(error.blocked_until()) {
                lane.block(until);
            }
            self.attempted(key, message_id, attempt);
            return;
        }
        // Nothing was tried, or a stop broke it off: the delivery is pending and comes again.
        let Some(lane) = self.lane(key) else { return };
        if !error.was_attempted() {
            use tidings::DeliveryErrorCause::{CircuitOpen, RetryAfter};
            if matches!(error.cause(), CircuitOpen | RetryAfter) {
                let soon = Instant::now() + PROBE_PAUSE;
                lane.block(error.blocked_until().unwrap_or(soon));
            }
        }
        lane.let_go(message_id);
        lane.add_work();
        self.resume(&mut self.lock(), lane.endpoint);
    }

    fn attempted(&self, key: &tidings::EndpointId, message_id: &str, attempt: &Attempt) {
        let Some(lane) = self.lane(key) else { return };
        let Some(held) = lane.held(message_id) else {
            return;
        };
        let now = self.clock.now();
        let is_local = outcome::is_local(attempt);
        let paused_until = if is_local {
            self.attempt_was_local(&lane, attempt)
        } else {
            self.attempt_was_made(&lane);
            None
        };
        let next = match paused_until {
            Some(until) => {
                let pause = until.saturating_duration_since(Instant::now());
                AfterAttempt::Retry(later(now, pause))
            }
            None => outcome::decide(attempt, held.tries, &held.retry, now, fastrand::f64()),
        };
        let error = attempt.result.as_ref().err();
        tracing::debug!(
            delivery = %held.delivery,
            endpoint = %lane.endpoint,
            number = attempt.number,
            status = attempt.status().map(|status| status.as_u16()),
            cause = error.map(AttemptError::cause),
            ?next,
            "a webhook was attempted"
        );
        self.recorder.push(Entry {
            outcome: Outcome {
                delivery: held.delivery,
                endpoint: lane.endpoint,
                was_due_at: held.due_at,
                attempt: (paused_until.is_none()).then(|| outcome::record(attempt)),
                is_local,
                next,
                waits_because: error
                    .filter(|_| paused_until.is_some())
                    .map(outcome::explain),
            },
            message_id: message_id.to_owned(),
            is_gone: outcome::is_gone(attempt),
            revision: held.revision,
            lane,
        });
    }

    fn lane(&self, key: &tidings::EndpointId) -> Option<Arc<Lane>> {
        let endpoint = key.as_str().parse().ok()?;
        self.lock().known.get(&endpoint).cloned()
    }

    fn lock(&self) -> Locked<'_> {
        // The maps are whole after every statement, so a poisoned lock is still right.
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lanes.served.len();
        let held = Held {
            before,
            after: before,
        };
        Locked { lanes, held }
    }
}

/// All queues of the dispatcher together: pages bound them before this does.
const MAX_QUEUED_IN_ALL: usize = 10_000_000;

/// How long to wait where the dispatcher does not say how long: while a circuit is probed.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// What a stop grants for writing the last outcomes, and for giving lanes back.
const LAST_WRITES: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("instance", &self.instance)
            .field("store", &self.store)
            .field("lanes", &self.lock().served.len())
            .field("unwritten", &self.recorder.unwritten())
            .finish_non_exhaustive()
    }
}
