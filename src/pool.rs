//! The workers, and what they share: the lanes behind a [`Client`](crate::Client) and a
//! [`Dispatcher`](crate::Dispatcher).
//!
//! Each file here is one part of the machine. Most only decide, under the lock of the pool:
//!
//! | part | decides |
//! |---|---|
//! | `lane` | which delivery of an endpoint goes next, and what becomes of it |
//! | `limit`, `budget` | how many attempts an endpoint gets at a time, and how many may be retries |
//! | `scheduler` | which lane goes next |
//! | `scheduler::turns`, `workers`, `hosts` | in which order, as far as workers and hosts have room |
//! | `room` | who may put something into a queue |
//!
//! And these do what was decided, without the lock:
//!
//! | part | does |
//! |---|---|
//! | `worker` | makes the attempts |
//! | `clock` | wakes lanes whose time has come |
//! | `report` | tells callers and callbacks what happened |

mod budget;
mod clock;
mod config;
mod delivery;
mod lane;
mod limit;
mod report;
mod room;
mod scheduler;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use budget::RetryBudget;
pub use delivery::Receipt;
pub use scheduler::Standing;

pub(crate) use config::{MAX_WORKERS, PoolConfig, check_queue_size};
pub(crate) use delivery::Reply;
pub(crate) use lane::{Lane, LaneParts};
pub(crate) use report::Callbacks;
pub(crate) use room::{Places, Refused, Room};
pub(crate) use scheduler::{Isolation, LaneId, Limits};

use crate::circuit_breaker::CircuitState;
use crate::{DeliveryErrorCause, Endpoint, EndpointId, Message, Sender, telemetry};
use delivery::Delivery;
use scheduler::Scheduler;

/// A message that a stop left without a final outcome, and the endpoint that it was for.
pub(crate) type Abandoned = (EndpointId, Message);

/// The lanes and everything that the workers need.
pub(crate) struct Pool {
    sender: Sender,
    callbacks: Callbacks,
    limits: Limits,
    state: Mutex<State>,
    /// Wakes workers that found nothing to do.
    changed: Notify,
    /// Wakes the clock when the time that it waits for may be another.
    clock: Notify,
    /// Breaks off everything that is under way.
    abort: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    scheduler: Scheduler,
    ids: HashMap<EndpointId, LaneId>,
    /// How many messages waited when it was told last.
    told_queued: usize,
    /// Until the caller of the stop takes them.
    abandoned: Vec<Abandoned>,
    /// Whether somebody is telling of circuits that changed: one at a time keeps them in order.
    is_telling: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Stopping,
}

/// How a lane is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Messages that are queued or wait for their next attempt.
    pub queued: usize,
    /// Attempts under way.
    pub in_flight: u32,
    /// How many attempts may be under way at present.
    pub in_flight_limit: u32,
    /// How long the endpoint keeps a worker.
    pub standing: Standing,
    /// The state of the circuit breaker, when there is one.
    pub circuit: Option<CircuitState>,
    /// Until when nothing is sent: until the open circuit is probed, or until the time that the
    /// endpoint asked for with `Retry-After`. `None` when nothing blocks the lane, or when its
    /// circuit was opened by hand and has no end.
    pub blocked_until: Option<Instant>,
    /// Whether the endpoint answered `410 Gone`. Then nothing is queued, and new messages are
    /// refused, until the endpoint is [inserted](crate::Dispatcher::insert) again.
    pub is_gone: bool,
}

impl Pool {
    pub(crate) fn new(sender: Sender, limits: Limits, callbacks: Callbacks) -> Arc<Self> {
        Arc::new(Self {
            sender,
            callbacks,
            limits,
            state: Mutex::new(State {
                phase: Phase::NotStarted,
                scheduler: Scheduler::new(limits),
                ids: HashMap::new(),
                told_queued: 0,
                abandoned: Vec::new(),
                is_telling: false,
            }),
            changed: Notify::new(),
            clock: Notify::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts the workers once in a lifetime, unless the pool was stopped before.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase != Phase::NotStarted {
            return;
        }
        // Under the lock: a stop at the same time finds either no worker or all of them.
        let slow = self
            .limits
            .isolation
            .map_or(0, |isolation| isolation.max_slow);
        for _ in 0..self.limits.workers.saturating_add(slow) {
            self.tasks.spawn(worker::work(Arc::clone(self)));
        }
        self.tasks.spawn(clock::keep_time(Arc::clone(self)));
        state.phase = Phase::Running;
    }

    /// Adds a lane, in place of another with the same id that should not be there.
    pub(crate) fn add(&self, lane: Lane) {
        let mut state = self.lock();
        let id = lane.id.clone();
        let lane = state.scheduler.add(lane);
        state.ids.insert(id, lane);
    }

    /// Changes the endpoint of a lane, and its settings if there are any, or adds the lane that
    /// `make` makes. Whether it was added.
    pub(crate) fn upsert(
        &self,
        id: &EndpointId,
        endpoint: Endpoint,
        parts: Option<LaneParts>,
        make: impl FnOnce(Endpoint) -> Lane,
    ) -> bool {
        let mut state = self.lock();
        let known = state.ids.get(id).copied();
        if let Some(lane) = known {
            state.scheduler.change(lane, endpoint, parts);
        } else {
            let lane = state.scheduler.add(make(endpoint));
            state.ids.insert(id.clone(), lane);
        }
        self.something_may_go(state);
        self.tell_circuits();
        known.is_none()
    }

    /// Takes a lane out and ends what waits in it.
    pub(crate) fn remove(&self, id: &str) -> Option<Vec<Message>> {
        let mut state = self.lock();
        let (id, lane) = state.ids.remove_entry(id)?;
        if let Some(lane) = state.scheduler.lane(lane) {
            lane.places.close();
        }
        let left = state.scheduler.remove(lane);
        self.something_may_go(state);
        let messages = left
            .iter()
            .map(|delivery| delivery.message.clone())
            .collect();
        for delivery in left {
            self.fail(&id, delivery, DeliveryErrorCause::Removed.into());
        }
        Some(messages)
    }

    /// The endpoints, in no order.
    pub(crate) fn ids(&self) -> Vec<EndpointId> {
        self.lock().ids.keys().cloned().collect()
    }

    /// The queue of a lane.
    pub(crate) fn places(&self, id: &str) -> Result<Arc<Places>, Refused> {
        let state = self.lock();
        let (_, lane) = state.open_lane(id)?;
        Ok(Arc::clone(&lane.places))
    }

    /// Puts a message that has room into a lane.
    pub(crate) fn accept(
        &self,
        id: &str,
        message: Message,
        room: Option<Room>,
        reply: Option<Reply>,
    ) -> Result<(), (Refused, Message)> {
        let mut state = self.lock();
        // The lane may have been removed while the message waited for room, and may even be there
        // again: the room is then one of another queue, which is no harm.
        let open = state.open_lane(id);
        let open = open.map(|(number, lane)| (number, lane.id.clone()));
        let (lane, id, room) = match (open, room) {
            (Err(refused), _) => return Err((refused, message)),
            (Ok(_), None) => return Err((Refused::Full, message)),
            (Ok((lane, id)), Some(room)) => (lane, id, room),
        };
        let delivery = Delivery::new(&id, message, room, reply);
        state.scheduler.push(lane, delivery);
        self.something_may_go(state);
        Ok(())
    }

    /// Opens or closes a circuit by hand. Whether there is one.
    pub(crate) fn switch_circuit(&self, id: &str, open: bool) -> bool {
        let mut state = self.lock();
        let Some(lane) = state.ids.get(id).copied() else {
            return false;
        };
        let switched = state.scheduler.switch_circuit(lane, open);
        self.something_may_go(state);
        self.tell_circuits();
        switched
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    pub(crate) async fn stop(&self) {
        self.begin_stop();
        self.tasks.wait().await;
    }

    /// Stops, and gives up on what is left after a time.
    pub(crate) async fn stop_within(&self, limit: Duration) -> Vec<Abandoned> {
        self.begin_stop();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            self.tasks.wait().await;
        }
        self.abandon_rest();
        std::mem::take(&mut self.lock().abandoned)
    }

    /// Ends everything: the workers report what they hold as they end, the rest is reported here.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
        self.abandon_rest();
    }

    pub(crate) fn queued(&self) -> usize {
        self.lock().scheduler.queued()
    }

    pub(crate) fn status(&self, id: &str) -> Option<LaneStatus> {
        let state = self.lock();
        let lane = state.lane(id)?;
        let standing = state.scheduler.standing(*state.ids.get(id)?)?;
        Some(LaneStatus {
            queued: lane.len(),
            in_flight: lane.in_flight(),
            in_flight_limit: lane.limit(),
            standing,
            circuit: lane.circuit_state(),
            blocked_until: lane.blocked_until(Instant::now()),
            is_gone: lane.is_gone(),
        })
    }

    /// Refuses new messages from now on.
    pub(crate) fn begin_stop(&self) {
        let mut state = self.lock();
        state.phase = Phase::Stopping;
        for lane in state.ids.values() {
            if let Some(lane) = state.scheduler.lane(*lane) {
                lane.places.close();
            }
        }
        state.scheduler.wake_all();
        self.something_may_go(state);
        self.tasks.close();
    }

    fn abandon_rest(&self) {
        let left = {
            let mut state = self.lock();
            let left = state.scheduler.drain();
            state.tell_queued();
            left
        };
        for (id, delivery) in left {
            self.abandon(&id, delivery, false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held can only come from a backoff of the caller's own, and leaves
        // the lanes in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the state and wakes a worker if there is something for it to do; all of them,
    /// and the clock, if there is nothing any more.
    fn something_may_go(&self, mut state: MutexGuard<'_, State>) {
        state.tell_queued();
        let has_work = state.scheduler.has_work();
        let is_over = state.phase == Phase::Stopping && state.scheduler.queued() == 0;
        drop(state);
        if has_work {
            self.changed.notify_one();
        }
        if is_over {
            self.changed.notify_waiters();
            self.clock.notify_one();
        }
    }
}

impl State {
    fn tell_queued(&mut self) {
        let queued = self.scheduler.queued();
        if queued != self.told_queued {
            telemetry::queued(self.told_queued, queued);
            self.told_queued = queued;
        }
    }

    /// The lane of an endpoint, when it takes messages.
    fn open_lane(&self, id: &str) -> Result<(LaneId, &Lane), Refused> {
        match self.phase {
            Phase::NotStarted => return Err(Refused::NotStarted),
            Phase::Stopping => return Err(Refused::Stopped),
            Phase::Running => {}
        }
        let number = *self.ids.get(id).ok_or(Refused::UnknownEndpoint)?;
        match self.scheduler.lane(number) {
            Some(lane) if lane.is_gone() => Err(Refused::Gone),
            Some(lane) => Ok((number, lane)),
            None => Err(Refused::UnknownEndpoint),
        }
    }

    fn lane(&self, id: &str) -> Option<&Lane> {
        self.scheduler.lane(*self.ids.get(id)?)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Pool")
            .field("phase", &state.phase)
            .field("endpoints", &state.ids.len())
            .field("queued", &state.scheduler.queued())
            .finish_non_exhaustive()
    }
}
