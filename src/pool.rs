//! The workers, and what they share: the lanes behind a [`Client`](crate::Client) and a
//! [`Dispatcher`](crate::Dispatcher).
//!
//! Each file here is one part of the machine. Most parts only decide, under the lock of the pool:
//!
//! | part | decides |
//! |---|---|
//! | `lane` | which delivery of an endpoint goes next, and what happens to it after an attempt |
//! | `lane::queue`, `limit`, `rate` | the order in a lane, how many attempts it gets at a time, and how fast |
//! | `scheduler` | which lane goes next |
//! | `scheduler::ready`, `workers`, `shares` | in which order, as far as workers, hosts and groups have room |
//! | `permits` | which message may enter a queue |
//!
//! And these act on what was decided, without the lock:
//!
//! | part | does |
//! |---|---|
//! | `worker` | makes the attempts |
//! | `timer` | wakes lanes whose time has come |
//! | `report` | calls what waits for an outcome: callers, callbacks, traces, metrics |
//! | `reply` | brings an outcome to the caller that waits for it |

mod config;
mod delivery;
mod lane;
mod moment;
mod permits;
mod reply;
mod report;
mod scheduler;
mod timer;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub(crate) use config::{MAX_WORKERS, PoolConfig, check_queue_size};
pub(crate) use lane::{LaneSettings, RateLimit};
pub(crate) use permits::{Permits, QueuePermit, QueueSpace};
use reply::Reply;
pub(crate) use reply::{Awaited, Outcome};
pub(crate) use report::Callbacks;
pub(crate) use scheduler::{Isolation, LaneId, Limits};

use crate::panics::catch;
use crate::{
    Closed, DeliveryError, DeliveryErrorCause, Endpoint, EndpointId, LaneStatus, Message, Refusal,
    Sender, telemetry,
};
use delivery::Delivery;
use lane::Lane;
use scheduler::Scheduler;
use worker::Worker;

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
    /// Wakes the timer when it sleeps for too long.
    timer: Notify,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    scheduler: Scheduler,
    ids: HashMap<EndpointId, LaneId>,
    /// Workers whose tasks have not ended.
    workers: usize,
    /// Whether everything that is under way is interrupted.
    is_aborted: bool,
    /// What interrupts the tasks.
    interrupts: Vec<AbortHandle>,
    /// Until when the timer sleeps.
    timer: Option<Instant>,
    /// How many messages waited when that was reported last.
    reported_queued: usize,
    /// Until the caller of the stop takes them.
    abandoned: Vec<Abandoned>,
    /// Whether a thread is reporting circuits that changed.
    is_reporting_circuits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Stopping,
}

/// What has to happen after a change of the state, without the lock.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing to do or not to do"
)]
struct Effects {
    has_work: bool,
    /// Nothing is queued, and nothing comes.
    is_drained: bool,
    wakes_timer: bool,
    has_circuit_change: bool,
    /// How many messages waited before and wait now, if that has changed.
    queued: Option<(usize, usize)>,
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
                workers: 0,
                is_aborted: false,
                interrupts: Vec::new(),
                timer: None,
                reported_queued: 0,
                abandoned: Vec::new(),
                is_reporting_circuits: false,
            }),
            changed: Notify::new(),
            timer: Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts the workers once in a lifetime, unless the pool was stopped before.
    pub(crate) fn start(self: &Arc<Self>) {
        let isolation = self.limits.isolation;
        let slow = isolation.map_or(0, |isolation| isolation.max_slow);
        let workers = self.limits.workers.saturating_add(slow);
        let (runtime, starting) = {
            let mut state = self.lock();
            if state.phase != Phase::NotStarted {
                return;
            }
            // Before anything is changed, because it may panic.
            let runtime = tokio::runtime::Handle::current();
            state.workers = workers;
            state.phase = Phase::Running;
            // A stop at the same time waits for the workers as if they were there.
            (runtime, self.tasks.token())
        };
        // Without the lock: a runtime that is ending drops the tasks at once, and with them the
        // workers.
        let timer = timer::run(Arc::clone(self));
        let mut interrupts = vec![self.tasks.spawn_on(timer.boxed(), &runtime).abort_handle()];
        interrupts.extend((0..workers).map(|_| {
            let worker = self
                .tasks
                .spawn_on(Worker::new(self).run().boxed(), &runtime);
            worker.abort_handle()
        }));
        drop(starting);
        let is_aborted = {
            let mut state = self.lock();
            state.interrupts = interrupts;
            state.is_aborted
        };
        if is_aborted {
            self.interrupt();
        }
    }

    /// Adds an endpoint that is not there yet. Returns the permits of its queue.
    pub(crate) fn add(
        &self,
        id: &EndpointId,
        endpoint: Endpoint,
        settings: LaneSettings,
    ) -> Arc<Permits> {
        self.change(|state| state.add(id, endpoint, settings, None))
    }

    /// Adds an endpoint, or changes it, and the settings of its lane too if `changes_lane`. Returns
    /// `true` if it was added.
    pub(crate) fn insert(
        &self,
        id: &EndpointId,
        endpoint: Endpoint,
        settings: LaneSettings,
        space: &Arc<QueueSpace>,
        changes_lane: bool,
    ) -> bool {
        let replaced = self.change(|state| {
            if let Some(lane) = state.ids.get(id).copied() {
                let settings = changes_lane.then_some(settings);
                Some(state.scheduler.change(lane, endpoint, settings))
            } else {
                state.add(id, endpoint, settings, Some(Arc::clone(space)));
                None
            }
        });
        replaced.is_none()
    }

    /// Takes a lane out and ends what waits in it.
    pub(crate) fn remove(&self, id: &str) -> Option<Vec<Message>> {
        let (id, mut lane) = self.change(|state| {
            let (id, lane) = state.ids.remove_entry(id)?;
            let lane = state.scheduler.remove(lane)?;
            lane.permits.close();
            Some((id, lane))
        })?;
        let left = lane.drain();
        let messages = left.iter().map(|delivery| delivery.message.clone());
        let messages = messages.collect();
        for delivery in left {
            self.fail(&id, delivery, None, DeliveryErrorCause::Removed.into());
        }
        Some(messages)
    }

    /// The endpoints, in no order.
    pub(crate) fn ids(&self) -> Vec<EndpointId> {
        self.lock().ids.keys().cloned().collect()
    }

    /// The permits of a lane's queue.
    pub(crate) fn permits(&self, id: &str) -> Result<Arc<Permits>, Closed> {
        let state = self.lock();
        let (_, lane) = state.open_lane(id)?;
        Ok(Arc::clone(&lane.permits))
    }

    /// Puts a message that has a permit into a lane. Without a permit it is refused for the given
    /// reason, unless the lane is closed for another.
    pub(crate) fn accept<R: From<Closed>>(
        &self,
        id: &str,
        message: Message,
        permit: Result<QueuePermit, R>,
        reply: Option<Reply>,
    ) -> Result<(), (Message, R)> {
        let permit = match permit {
            Ok(permit) => permit,
            Err(refusal) => {
                let closed = self.lock().open_lane(id).err();
                return Err((message, closed.map_or(refusal, R::from)));
            }
        };
        let delivery = Delivery::new(id, message, permit, reply);
        let refused = self.change(|state| match state.open_lane(id) {
            // The lane may have been removed while the message waited for its permit, and may even
            // be there again: the permit is then one of another queue, which does no harm.
            Ok((lane, _)) => {
                state.scheduler.push(lane, delivery);
                None
            }
            Err(closed) => Some((delivery, closed)),
        });
        match refused {
            None => Ok(()),
            Some((delivery, closed)) => Err((delivery.message, closed.into())),
        }
    }

    /// Puts a message that has a permit into a lane, as [`accept`](Self::accept) does, and returns a
    /// future that waits for its final outcome.
    pub(crate) fn deliver<R: From<Closed> + Into<Refusal>>(
        &self,
        id: &str,
        message: Message,
        permit: Result<QueuePermit, R>,
    ) -> Result<Awaited<'_>, DeliveryError> {
        let (reply, awaited) = Awaited::new(self, message.clone());
        match self.accept(id, message, permit, Some(reply)) {
            Ok(()) => Ok(awaited),
            Err((message, refusal)) => Err(DeliveryError::refused(message, refusal)),
        }
    }

    /// Ends what keeps requests from a lane. Returns `false` if there is none.
    pub(crate) fn unblock(&self, id: &str) -> bool {
        self.change(|state| {
            let lane = state.ids.get(id).copied();
            lane.is_some_and(|lane| state.scheduler.unblock(lane))
        })
    }

    /// Opens or closes a circuit by hand. Returns `false` if there is none.
    pub(crate) fn switch_circuit(&self, id: &str, open: bool) -> bool {
        self.change(|state| {
            let lane = state.ids.get(id).copied();
            lane.is_some_and(|lane| state.scheduler.switch_circuit(lane, open))
        })
    }

    /// Continues a circuit where another one of the endpoint stood. Returns `false` if there is none.
    pub(crate) fn resume_circuit(&self, id: &str, next_open_for: Duration) -> bool {
        self.change(|state| {
            let lane = state.ids.get(id).copied();
            lane.is_some_and(|lane| state.scheduler.resume_circuit(lane, next_open_for))
        })
    }

    /// Refuses new messages and waits until every accepted one has its final outcome.
    pub(crate) async fn stop(&self) {
        self.begin_stop();
        self.tasks.wait().await;
        // Nothing is left, unless the runtime of the workers has ended before.
        self.abandon_rest();
    }

    /// Stops, and gives up on what is left after a time.
    pub(crate) async fn stop_within(&self, limit: Duration) -> Vec<Abandoned> {
        self.begin_stop();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            self.interrupt();
            self.tasks.wait().await;
        }
        self.abandon_rest();
        std::mem::take(&mut self.lock().abandoned)
    }

    /// Ends everything: the workers report what they hold as they end, the rest is reported here.
    pub(crate) fn abort(&self) {
        self.interrupt();
        self.abandon_rest();
    }

    /// Interrupts everything that is under way: dropping a delivery in the hands of a worker abandons
    /// it.
    fn interrupt(&self) {
        let interrupts = {
            let mut state = self.lock();
            state.is_aborted = true;
            std::mem::take(&mut state.interrupts)
        };
        // Without the lock, because it calls the runtime.
        for interrupt in interrupts {
            interrupt.abort();
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.lock().scheduler.queued()
    }

    pub(crate) fn status(&self, id: &str) -> Option<LaneStatus> {
        let state = self.lock();
        let number = *state.ids.get(id)?;
        let lane = state.scheduler.lane(number)?;
        Some(LaneStatus {
            queued: lane.len(),
            in_flight: lane.in_flight(),
            in_flight_limit: lane.limit(),
            speed: state.scheduler.speed(number)?,
            circuit: lane.circuit_state(),
            next_open_for: lane.next_open_for(),
            blocked_until: lane.blocked_until(Instant::now()),
            is_gone: lane.is_gone(),
        })
    }

    /// Refuses new messages from now on.
    fn begin_stop(&self) {
        self.change(State::begin_stop);
        self.tasks.close();
    }

    /// The task of a worker has ended. The last one leaves nothing behind: if its runtime ended,
    /// nothing would ever be sent.
    fn worker_ended(&self) {
        let is_last = self.change(|state| {
            state.workers -= 1;
            if state.workers == 0 {
                state.begin_stop();
            }
            state.workers == 0
        });
        if is_last {
            self.abandon_rest();
        }
    }

    fn abandon_rest(&self) {
        for (id, delivery) in self.change(|state| state.scheduler.drain()) {
            self.abandon(&id, delivery, false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of the caller's runs under it, so that nothing under it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state under the lock, and does without it what follows from that: wakes a worker
    /// if there is something to do, which wakes the next one, so that a single notice is enough for
    /// any number of things to do; wakes all of them if nothing is left, and the timer if it would
    /// sleep for too long; and reports what has changed.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Without a block that has both as its value: that would copy what a worker found.
        let mut state = self.lock();
        let result = change(&mut state);
        let effects = state.effects();
        drop(state);
        if effects.has_work {
            self.changed.notify_one();
        }
        if effects.is_drained {
            self.changed.notify_waiters();
        }
        if effects.wakes_timer {
            self.timer.notify_one();
        }
        if let Some((before, now)) = effects.queued {
            catch(|| telemetry::queued(before, now));
        }
        if effects.has_circuit_change {
            self.report_circuits();
        }
        result
    }
}

impl State {
    /// Looks at what has to happen after a change.
    fn effects(&mut self) -> Effects {
        let queued = self.scheduler.queued();
        let before = std::mem::replace(&mut self.reported_queued, queued);
        let is_drained = self.phase == Phase::Stopping && queued == 0;
        let next_timer = self.scheduler.next_timer();
        let is_timer_late = next_timer.is_some_and(|at| self.timer.is_none_or(|timer| at < timer));
        Effects {
            has_work: self.scheduler.has_work(),
            is_drained,
            wakes_timer: is_timer_late || (is_drained && self.scheduler.in_flight() == 0),
            has_circuit_change: self.scheduler.has_circuit_change(),
            queued: (queued != before).then_some((before, queued)),
        }
    }

    fn add(
        &mut self,
        id: &EndpointId,
        endpoint: Endpoint,
        settings: LaneSettings,
        space: Option<Arc<QueueSpace>>,
    ) -> Arc<Permits> {
        let permits = Permits::new(settings.queue_size, space);
        let lane = Lane::new(id.clone(), endpoint, Arc::clone(&permits), settings);
        let lane = self.scheduler.add(lane);
        self.ids.insert(id.clone(), lane);
        permits
    }

    fn begin_stop(&mut self) {
        self.phase = Phase::Stopping;
        for lane in self.ids.values() {
            if let Some(lane) = self.scheduler.lane(*lane) {
                lane.permits.close();
            }
        }
        self.scheduler.wake_all();
    }

    fn take_new_pause(&mut self, id: &EndpointId) -> bool {
        let lane = self.ids.get(id).copied();
        lane.is_some_and(|lane| self.scheduler.take_new_pause(lane))
    }

    /// The lane of an endpoint, if it accepts messages.
    fn open_lane(&self, id: &str) -> Result<(LaneId, &Lane), Closed> {
        match self.phase {
            Phase::NotStarted => return Err(Closed::NotStarted),
            Phase::Stopping => return Err(Closed::Stopped),
            Phase::Running => {}
        }
        let number = *self.ids.get(id).ok_or(Closed::UnknownEndpoint)?;
        match self.scheduler.lane(number) {
            Some(lane) if lane.is_gone() => Err(Closed::Gone),
            Some(lane) => Ok((number, lane)),
            None => Err(Closed::UnknownEndpoint),
        }
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

#[cfg(test)]
mod tests;
