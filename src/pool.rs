//! The workers, and what they share: the lanes behind a [`Client`](crate::Client) and a
//! [`Dispatcher`](crate::Dispatcher).
//!
//! Each file here is one part of the machine, and all but this one only decide:
//!
//! | part | decides |
//! |---|---|
//! | `lane` | which delivery of an endpoint goes next, and what becomes of it |
//! | `limit`, `budget` | how many attempts an endpoint gets at a time, and how many may be retries |
//! | `scheduler`, `hosts` | which lane goes next |
//! | `room` | who may put something into a queue |

mod budget;
mod delivery;
mod hosts;
mod lane;
mod limit;
mod room;
mod scheduler;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use budget::RetryBudget;
pub use delivery::Receipt;
pub use scheduler::Standing;

pub(crate) use delivery::Reply;
pub(crate) use lane::{Lane, LaneParts};
pub(crate) use room::{Places, Room};
pub(crate) use scheduler::{Isolation, LaneId, Limits};

use crate::circuit_breaker::CircuitState;
use crate::{
    Attempt, DeliveryError, DeliveryErrorCause, Endpoint, EndpointId, Message, NotifyError, Sender,
};
use delivery::Delivery;
use lane::Settled;
use scheduler::{Scheduler, Ticket, Work};

pub(crate) type OnError = Box<dyn Fn(&EndpointId, DeliveryError) + Send + Sync>;
pub(crate) type OnCircuitChange = Box<dyn Fn(&EndpointId, CircuitState) + Send + Sync>;

/// A message that a stop left without a final outcome, and the endpoint that it was for.
pub(crate) type Abandoned = (EndpointId, Message);

/// Who is told what happens.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) on_error: Option<OnError>,
    pub(crate) on_circuit_change: Option<OnCircuitChange>,
}

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

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotStarted,
    Stopped,
    Full,
    UnknownEndpoint,
}

impl Refused {
    pub(crate) fn into_error(self, message: Message) -> NotifyError {
        match self {
            Self::NotStarted => NotifyError::NotStarted(message),
            Self::Stopped => NotifyError::Stopped(message),
            Self::Full => NotifyError::QueueFull(message),
            Self::UnknownEndpoint => NotifyError::UnknownEndpoint(message),
        }
    }
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
            self.tasks.spawn(work(Arc::clone(self)));
        }
        self.tasks.spawn(keep_time(Arc::clone(self)));
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
            self.fail(&id, delivery, DeliveryErrorCause::Removed);
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
        state.check_running()?;
        state
            .lane(id)
            .map(|lane| Arc::clone(&lane.places))
            .ok_or(Refused::UnknownEndpoint)
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
        let room = match state.check_running() {
            Err(refused) => Err(refused),
            Ok(()) => room.ok_or(Refused::Full),
        };
        // The lane may have been removed while the message waited for room, and may even be there
        // again: the room is then one of another queue, which is no harm.
        let lane = state.ids.get_key_value(id).ok_or(Refused::UnknownEndpoint);
        match room.and_then(|room| Ok((room, lane?))) {
            Err(refused) => Err((refused, message)),
            Ok((room, (id, &lane))) => {
                let delivery = Delivery::new(id, message, room, reply);
                state.scheduler.push(lane, delivery);
                self.something_may_go(state);
                Ok(())
            }
        }
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
        let left = self.lock().scheduler.drain();
        for (id, delivery) in left {
            self.abandon(&id, delivery);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held can only come from a backoff of the caller's own, and leaves
        // the lanes in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the state and wakes a worker if there is something for it to do; all of them,
    /// and the clock, if there is nothing any more.
    fn something_may_go(&self, state: MutexGuard<'_, State>) {
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

    /// Waits for something to do; `None` when there is nothing any more.
    async fn next(&self) -> Option<Work> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look at the lanes, so that no change after it is missed.
            changed.as_mut().enable();
            if self.abort.is_cancelled() {
                return None;
            }
            let work = {
                let mut state = self.lock();
                let draining = state.phase == Phase::Stopping;
                let now = Instant::now();
                let timer = state.scheduler.next_timer();
                state.scheduler.wake(now);
                let work = state.scheduler.pick(now, draining);
                if work.is_none() && draining && state.scheduler.queued() == 0 {
                    return None;
                }
                let has_another_timer = state.scheduler.next_timer() != timer;
                // One wakes the next one, so that a single notice is enough for any number of
                // things to do.
                self.something_may_go(state);
                if has_another_timer {
                    self.clock.notify_one();
                }
                work
            };
            self.tell_circuits();
            if work.is_some() {
                return work;
            }
            tokio::select! {
                () = changed => {}
                () = self.abort.cancelled() => return None,
            }
        }
    }

    async fn attempt(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
        delivery: Box<Delivery>,
        ticket: Ticket,
    ) {
        let number = u32::try_from(delivery.attempts.len() + 1).unwrap_or(u32::MAX);
        let span = delivery.span();
        let message = delivery.message.clone();
        let mut under_way = UnderWay {
            pool: self,
            id,
            held: Some((delivery, ticket)),
        };
        let attempt = {
            let attempt = self.sender.attempt(&endpoint, &message, number);
            let mut attempt = pin!(attempt.instrument(span.clone()));
            let began = Instant::now();
            let mut check_after = self.limits.isolation.map(|isolation| isolation.slow_after);
            loop {
                let check = async {
                    match check_after.and_then(|after| began.checked_add(after)) {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    attempt = &mut attempt => break attempt,
                    () = self.abort.cancelled() => return,
                    () = check => check_after = under_way.still_waits(began.elapsed()),
                }
            }
        };
        drop(message);
        span.in_scope(|| under_way.settle(attempt));
    }

    fn fail(&self, id: &EndpointId, delivery: Delivery, cause: DeliveryErrorCause) {
        let span = delivery.span();
        let Delivery {
            message,
            attempts,
            reply,
            room,
            ..
        } = delivery;
        drop(room);
        let error = DeliveryError::new(message, attempts, cause);
        let unheard = match reply {
            Some(reply) => reply.send(Err(error)).err().and_then(Result::err),
            None => Some(error),
        };
        if let Some(error) = unheard {
            span.in_scope(|| self.report(id, error));
        }
    }

    fn abandon(&self, id: &EndpointId, delivery: Delivery) {
        let abandoned = (id.clone(), delivery.message.clone());
        self.lock().abandoned.push(abandoned);
        self.fail(id, delivery, DeliveryErrorCause::Abandoned);
    }

    fn report(&self, id: &EndpointId, error: DeliveryError) {
        let Some(on_error) = &self.callbacks.on_error else {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                cause = %error.cause(),
                "a message was not delivered"
            );
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| on_error(id, error))).is_err() {
            tracing::error!("the error callback panicked");
        }
    }

    /// Tells of circuits that have changed, in order, without holding the state meanwhile.
    fn tell_circuits(&self) {
        let Some(tell) = &self.callbacks.on_circuit_change else {
            return;
        };
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_telling, true) {
            // Whoever is at it tells this as well.
            return;
        }
        while let Some((id, circuit)) = state.scheduler.next_circuit_change() {
            drop(state);
            if catch_unwind(AssertUnwindSafe(|| tell(&id, circuit))).is_err() {
                tracing::error!("the callback for circuits panicked");
            }
            state = self.lock();
        }
        state.is_telling = false;
    }
}

impl State {
    fn check_running(&self) -> Result<(), Refused> {
        match self.phase {
            Phase::NotStarted => Err(Refused::NotStarted),
            Phase::Stopping => Err(Refused::Stopped),
            Phase::Running => Ok(()),
        }
    }

    fn lane(&self, id: &str) -> Option<&Lane> {
        self.scheduler.lane(*self.ids.get(id)?)
    }
}

fn delivered(delivery: Delivery) {
    let Some(reply) = delivery.reply else {
        return;
    };
    // Whoever asked may have gone: then nobody wants the receipt.
    drop(reply.send(Ok(Receipt {
        message: delivery.message,
        attempts: delivery.attempts,
    })));
}

/// A worker: does what is to be done until nothing is left.
async fn work(pool: Arc<Pool>) {
    while let Some(work) = pool.next().await {
        match work {
            Work::Attempt {
                id,
                endpoint,
                delivery,
                ticket,
            } => pool.attempt(id, endpoint, delivery, ticket).await,
            Work::Fail {
                id,
                delivery,
                cause,
            } => pool.fail(&id, *delivery, cause),
        }
    }
}

/// The clock: wakes the lanes whose time has come, so that no worker and no delivery needs a timer
/// of its own.
async fn keep_time(pool: Arc<Pool>) {
    loop {
        let wake_at = {
            let mut state = pool.lock();
            state.scheduler.wake(Instant::now());
            let scheduler = &state.scheduler;
            let is_idle = scheduler.queued() == 0 && scheduler.in_flight() == 0;
            if state.phase == Phase::Stopping && is_idle {
                return;
            }
            let wake_at = scheduler.next_timer();
            if scheduler.has_work() {
                pool.changed.notify_one();
            }
            wake_at
        };
        let due = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = pool.clock.notified() => {}
            () = pool.abort.cancelled() => return,
        }
    }
}

/// A delivery in the hands of a worker. Dropped before its end, by an abort or with its runtime, it
/// is abandoned and not lost.
struct UnderWay<'a> {
    pool: &'a Pool,
    id: EndpointId,
    held: Option<(Box<Delivery>, Ticket)>,
}

impl UnderWay<'_> {
    /// Tells that there is no answer yet, and learns after how long to tell again.
    fn still_waits(&mut self, elapsed: Duration) -> Option<Duration> {
        let (_, ticket) = self.held.as_mut()?;
        let mut state = self.pool.lock();
        let again = state.scheduler.still_under_way(ticket, elapsed);
        // The worker that this attempt held may be another's now.
        self.pool.something_may_go(state);
        // Never at once: the clock may be coarser than what was asked for.
        again.map(|again| again.max(elapsed + Duration::from_millis(1)))
    }

    fn settle(mut self, attempt: Attempt) {
        let Some((delivery, ticket)) = self.held.take() else {
            return;
        };
        let mut state = self.pool.lock();
        let settled = state
            .scheduler
            .settle(&ticket, delivery, attempt, Instant::now());
        self.pool.something_may_go(state);
        match settled {
            Settled::Waits => {}
            Settled::Delivered(delivery) => delivered(*delivery),
            Settled::Failed(delivery, cause) => self.pool.fail(&self.id, *delivery, cause),
        }
        self.pool.tell_circuits();
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some((delivery, ticket)) = self.held.take() {
            self.pool.lock().scheduler.forget(&ticket, Instant::now());
            self.pool.abandon(&self.id, *delivery);
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
