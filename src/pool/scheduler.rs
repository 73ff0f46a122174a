//! Which lane goes next. It decides, and leaves it to others to act.
//!
//! A lane that may have something to do is in the ready queue. A worker takes the first one, asks it
//! for an attempt, and puts it back at the end if there may be more: round robin, where each turn is
//! one attempt, whatever its size. A lane that cannot continue leaves the queue, and comes back with
//! the event that changes that: a new delivery, the end of an attempt, a time, or room in a share, of
//! its host or its group. So nothing here looks at all lanes, and each lane has one timer, however
//! much waits in it.
//!
//! Turns alone are not fair when some take a millisecond and others half a minute. Hence the
//! [`Speed`] of a lane, one queue for each speed, and a rule for each about the workers that it may
//! have.

mod ready;
mod shares;
mod slot;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::delivery::{Delivery, Failure, cause_of};
use super::lane::{Lane, LaneSettings, Next, Settled};
use crate::circuit_breaker::{CircuitState, Permit};
use crate::retry::RetryPolicy;
use crate::{Attempt, DeliveryErrorCause, Endpoint, EndpointId, Speed, Verdict};
use ready::ReadyQueue;
use shares::{Common, PromisedOfEach, SharePermit, Shares};
use slot::{Place, Slot, Turn, host_of};
use workers::{WorkerPermit, Workers};

pub(crate) use workers::{Isolation, Limits};

/// How many lanes a worker looks at under the lock of the pool until it gives way to others. All
/// lanes of a full host can become ready at once.
const LOOKS_AT_ONCE: usize = 64;

/// A lane for as long as it lives. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(u64);

#[derive(Debug)]
pub(crate) struct Scheduler {
    lanes: FxHashMap<LaneId, Slot>,
    ready: ReadyQueue,
    workers: Workers,
    shares: Shares,
    timers: BTreeSet<(Instant, LaneId)>,
    /// Lanes that wait for room, and whose oldest delivery may have become too old for that.
    overdue: Vec<LaneId>,
    next_lane: u64,
    /// Deliveries in all lanes.
    queued: usize,
    /// Lanes whose circuit is not as it was reported last, and whether it was changed by hand.
    unreported: BTreeMap<LaneId, bool>,
}

/// The right to one attempt, to be given back with [`Scheduler::settle`] or
/// [`Scheduler::forget`].
#[derive(Debug)]
pub(crate) struct AttemptPermit {
    lane: LaneId,
    /// When the right was given.
    pub(super) began: Instant,
    /// Of the endpoint.
    version: u64,
    /// Decides whether there is another attempt after this one. To be taken out before the permit is
    /// given back, because the caller's code may run when it is dropped.
    pub(super) retry: Option<RetryPolicy>,
    circuit: Option<Permit>,
    worker: WorkerPermit,
    shares: SharePermit,
}

/// Something for a worker to do.
#[derive(Debug)]
pub(crate) enum Work {
    Attempt {
        id: EndpointId,
        endpoint: Endpoint,
        delivery: Box<Delivery>,
        permit: AttemptPermit,
    },
    Fail {
        id: EndpointId,
        delivery: Box<Delivery>,
        failure: Failure,
    },
}

/// A circuit that is in another state than it was reported last.
#[derive(Debug)]
pub(crate) struct CircuitChange {
    pub(crate) id: EndpointId,
    pub(crate) host: Arc<str>,
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) by_hand: bool,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            lanes: FxHashMap::default(),
            ready: ReadyQueue::new(),
            workers: Workers::new(limits),
            shares: Shares::new(limits),
            timers: BTreeSet::new(),
            overdue: Vec::new(),
            next_lane: 0,
            queued: 0,
            unreported: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, lane: Lane) -> LaneId {
        let id = LaneId(self.next_lane);
        self.next_lane += 1;
        let is_isolated = self.workers.isolation().is_some();
        let shares = self.shares.of(&host_of(&lane.endpoint), lane.group());
        self.lanes.insert(id, Slot::new(lane, shares, is_isolated));
        id
    }

    pub(crate) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id).map(|slot| &slot.lane)
    }

    /// How long a lane's attempts take at present.
    pub(crate) fn speed(&self, id: LaneId) -> Option<Speed> {
        self.lanes.get(&id).map(Slot::speed)
    }

    /// Replaces the endpoint of a lane, and its settings if there are any; what waits stays. Returns
    /// what was replaced, because the caller's code may run when it is dropped.
    pub(crate) fn change(
        &mut self,
        id: LaneId,
        endpoint: Endpoint,
        settings: Option<LaneSettings>,
    ) -> Option<(Endpoint, Option<RetryPolicy>)> {
        // It may wait for room in its old shares.
        self.make_idle(id);
        let slot = self.lanes.get_mut(&id)?;
        slot.host = host_of(&endpoint);
        let old_endpoint = slot.lane.change_endpoint(endpoint);
        if old_endpoint.url() != slot.lane.endpoint.url() {
            slot.restart(self.workers.isolation().is_some());
        }
        let old_retry = settings.and_then(|settings| slot.lane.reconfigure(settings));
        let shares = self.shares.of(&slot.host, slot.lane.group());
        let old_shares = std::mem::replace(&mut slot.shares, shares);
        self.unblock_shares(&old_shares);
        self.make_ready(id);
        self.note_circuit(id, true);
        Some((old_endpoint, old_retry))
    }

    /// Takes a lane out, with everything that waits in it.
    pub(crate) fn remove(&mut self, id: LaneId) -> Option<Lane> {
        self.make_idle(id);
        self.set_timer(id, None);
        self.unreported.remove(&id);
        let slot = self.lanes.remove(&id)?;
        self.unblock_shares(&slot.shares);
        self.queued -= slot.lane.len();
        Some(slot.lane)
    }

    /// Takes everything that waits out of all lanes.
    pub(crate) fn drain(&mut self) -> Vec<(EndpointId, Delivery)> {
        self.queued = 0;
        let mut left = Vec::new();
        for slot in self.lanes.values_mut() {
            let deliveries = slot.lane.drain().into_iter();
            left.extend(deliveries.map(|delivery| (slot.lane.id.clone(), delivery)));
        }
        left
    }

    /// Opens or closes the circuit of a lane by hand. Returns `false` if it has none.
    pub(crate) fn switch_circuit(&mut self, id: LaneId, open: bool) -> bool {
        let slot = self.lanes.get_mut(&id);
        let switched = slot.is_some_and(|slot| slot.lane.switch_circuit(open));
        self.note_circuit(id, true);
        self.make_ready(id);
        switched
    }

    /// Continues the circuit of a lane where another one stood. Returns `false` if it has none.
    pub(crate) fn resume_circuit(&mut self, id: LaneId, next_open_for: Duration) -> bool {
        let slot = self.lanes.get_mut(&id);
        let now = Instant::now();
        let resumed = slot.is_some_and(|slot| slot.lane.resume_circuit(next_open_for, now));
        self.note_circuit(id, true);
        self.make_ready(id);
        resumed
    }

    /// Ends what keeps requests from a lane. Returns `false` if there is none.
    pub(crate) fn unblock(&mut self, id: LaneId) -> bool {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return false;
        };
        slot.lane.unblock();
        self.note_circuit(id, true);
        self.make_ready(id);
        true
    }

    /// Takes the news that the endpoint of a lane has asked for no requests for a long time.
    pub(crate) fn take_new_pause(&mut self, id: LaneId) -> bool {
        let slot = self.lanes.get_mut(&id);
        slot.is_some_and(|slot| slot.lane.take_new_pause())
    }

    /// Whether a circuit is not as it was reported last.
    pub(crate) fn has_circuit_change(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// Takes a circuit that is not as it was reported last.
    pub(crate) fn next_circuit_change(&mut self) -> Option<CircuitChange> {
        while let Some((id, by_hand)) = self.unreported.pop_first() {
            let Some(slot) = self.lanes.get_mut(&id) else {
                continue;
            };
            let state = slot.lane.circuit_state();
            // A breaker that was added or removed is no change of a circuit.
            if let (Some(from), Some(to)) = (std::mem::replace(&mut slot.reported, state), state) {
                return Some(CircuitChange {
                    id: slot.lane.id.clone(),
                    host: Arc::clone(&slot.host),
                    from,
                    to,
                    by_hand,
                });
            }
        }
        None
    }

    pub(crate) fn push(&mut self, id: LaneId, delivery: Box<Delivery>) {
        if let Some(slot) = self.lanes.get_mut(&id) {
            slot.lane.push(delivery);
            self.queued += 1;
            self.make_ready(id);
        }
    }

    /// Deliveries that no worker holds.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.workers.in_flight()
    }

    /// Whether [`pick`](Self::pick) may find something.
    pub(crate) fn has_work(&self) -> bool {
        !self.overdue.is_empty() || self.ready.has_next(|speed| self.workers.has_permit(speed))
    }

    /// The earliest time at which a lane may have something to do that has nothing now.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Makes the lanes ready whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.set_timer(id, None);
            let slot = self.lanes.get(&id);
            if slot.is_some_and(|slot| slot.is_blocked() && slot.lane.overdue_at().is_some()) {
                self.overdue.push(id);
            } else {
                self.make_ready(id);
            }
        }
    }

    /// Makes every lane ready in which something waits: the rules have changed.
    pub(crate) fn wake_all(&mut self) {
        let ids: Vec<_> = self.lanes.keys().copied().collect();
        for id in ids {
            self.make_ready(id);
        }
    }

    /// Takes what a worker does next. Even if there is nothing, there may still be
    /// [something](Self::has_work) to look at.
    pub(crate) fn pick(&mut self, now: Instant, draining: bool) -> Option<Work> {
        if let Some(overdue) = self.fail_overdue(now) {
            return Some(overdue);
        }
        for _ in 0..LOOKS_AT_ONCE {
            let workers = &self.workers;
            let id = self.ready.pop(|speed| workers.has_permit(speed))?;
            let Some(slot) = self.lanes.get_mut(&id) else {
                continue;
            };
            slot.place = Place::Idle;
            let (speed, kept) = (slot.speed(), slot.turn.kept());
            let none = PromisedOfEach::default();
            if let Some(full) = self.shares.full(&slot.shares[kept..], speed, &none) {
                self.block(id, kept + full);
                continue;
            }
            let next = slot.lane.take(now, draining);
            let endpoint_id = slot.lane.id.clone();
            self.note_circuit(id, false);
            match next {
                Next::Attempt(delivery, circuit) => {
                    self.queued -= 1;
                    let Some((endpoint, permit)) = self.begin(id, circuit, now) else {
                        continue;
                    };
                    self.make_ready(id);
                    return Some(Work::Attempt {
                        id: endpoint_id,
                        endpoint,
                        delivery,
                        permit,
                    });
                }
                Next::Fail(delivery, failure) => {
                    self.queued -= 1;
                    self.end_turn(id);
                    self.make_ready(id);
                    return Some(Work::Fail {
                        id: endpoint_id,
                        delivery,
                        failure,
                    });
                }
                Next::Wait(at) => {
                    self.set_timer(id, at);
                    self.end_turn(id);
                }
                Next::Busy | Next::Empty => self.end_turn(id),
            }
        }
        None
    }

    /// Takes a delivery that has become too old while its lane waits for room.
    fn fail_overdue(&mut self, now: Instant) -> Option<Work> {
        while let Some(id) = self.overdue.pop() {
            let Some(slot) = self.lanes.get_mut(&id).filter(|slot| slot.is_blocked()) else {
                continue;
            };
            let Some((delivery, failure)) = slot.lane.fail_overdue(now) else {
                self.watch_blocked(id);
                continue;
            };
            let endpoint_id = slot.lane.id.clone();
            self.queued -= 1;
            // There may be more.
            self.overdue.push(id);
            self.requeue(id);
            self.unblock_shares_of(id);
            return Some(Work::Fail {
                id: endpoint_id,
                delivery,
                failure,
            });
        }
        None
    }

    /// Takes note that an attempt has been under way for so long, and returns after how long to
    /// check again.
    pub(crate) fn check_late(
        &mut self,
        permit: &mut AttemptPermit,
        elapsed: Duration,
    ) -> Option<Duration> {
        let isolation = self.workers.isolation()?;
        if elapsed < isolation.slow_after {
            return Some(isolation.slow_after);
        }
        let turned_late = self.workers.mark_late(&mut permit.worker, isolation);
        if turned_late {
            self.shares.mark_late(&mut permit.shares);
        }
        let slot = self.slot_of(permit);
        let check_again = slot.and_then(|slot| {
            slot.late += usize::from(turned_late);
            slot.lane.mark_stalled(elapsed)
        });
        self.requeue(permit.lane);
        // It gives a worker back, also to its group.
        self.unblock_shares_after(permit);
        check_again
    }

    /// Takes note of an attempt, and decides what happens to its delivery. `retry_after` is the
    /// wait before the next attempt, if the retry policy allows one.
    pub(crate) fn settle(
        &mut self,
        mut permit: AttemptPermit,
        delivery: Box<Delivery>,
        attempt: &Attempt,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Settled {
        let isolation = self.workers.isolation();
        let Some(slot) = self.lanes.get_mut(&permit.lane) else {
            self.end(&permit);
            return settle_without_lane(delivery, attempt);
        };
        if let Some(isolation) = isolation
            && slot.lane.is_at_url(permit.version)
        {
            slot.learn(attempt.elapsed, isolation.slow_after);
        }
        let circuit = permit.circuit.take();
        let version = permit.version;
        let settled = slot
            .lane
            .settle(delivery, version, circuit, attempt, retry_after, now);
        match &settled {
            Settled::Waits => self.queued += 1,
            Settled::Gone(_, left) => self.queued -= left.len(),
            Settled::Delivered(..) | Settled::Failed(..) => {}
        }
        self.end(&permit);
        settled
    }

    /// Takes note of an attempt that was interrupted.
    pub(crate) fn forget(&mut self, mut permit: AttemptPermit, now: Instant) {
        let circuit = permit.circuit.take();
        if let Some(slot) = self.lanes.get_mut(&permit.lane) {
            slot.lane.forget(permit.version, circuit, now);
        }
        self.end(&permit);
    }

    fn begin(
        &mut self,
        id: LaneId,
        circuit: Option<Permit>,
        now: Instant,
    ) -> Option<(Endpoint, AttemptPermit)> {
        let slot = self.lanes.get_mut(&id)?;
        let speed = slot.speed();
        let turn = std::mem::take(&mut slot.turn);
        self.shares.give_back(&slot.shares, turn);
        let permit = AttemptPermit {
            lane: id,
            began: now,
            version: slot.lane.version(),
            retry: slot.lane.retry().cloned(),
            circuit,
            worker: self.workers.acquire(speed),
            shares: self.shares.acquire(&slot.shares, speed),
        };
        let endpoint = slot.lane.endpoint.clone();
        if turn.keeps() {
            // It took what it kept, and the next lane may keep room.
            self.unblock_shares_of(id);
        }
        Some((endpoint, permit))
    }

    fn end(&mut self, permit: &AttemptPermit) {
        self.workers.release(&permit.worker);
        self.shares.release(&permit.shares);
        if let Some(slot) = self.slot_of(permit) {
            slot.late -= usize::from(permit.worker.is_late());
        }
        self.note_circuit(permit.lane, false);
        self.requeue(permit.lane);
        let promised = self.unblock_shares_after(permit);
        self.make_ready_behind(permit.lane, &promised);
    }

    /// The lane of an attempt, unless the lane has another URL by now.
    fn slot_of(&mut self, permit: &AttemptPermit) -> Option<&mut Slot> {
        let slot = self.lanes.get_mut(&permit.lane)?;
        slot.lane.is_at_url(permit.version).then_some(slot)
    }

    /// Puts an idle lane that may go into the ready queue. Returns its speed if it did.
    fn make_ready(&mut self, id: LaneId) -> Option<Speed> {
        let slot = self.lanes.get_mut(&id)?;
        if slot.is_blocked() {
            self.watch_blocked(id);
            return None;
        }
        if slot.place != Place::Idle || !slot.lane.may_go() {
            return None;
        }
        let speed = slot.speed();
        let position = self.ready.push_as(speed, slot.turn.keeps(), id);
        slot.place = Place::Ready(position);
        Some(speed)
    }

    /// Puts an idle lane that may go into the ready queue, unless what it would take was promised to
    /// others: one that always has something to do would leave them nothing.
    fn make_ready_behind(&mut self, id: LaneId, promised: &PromisedOfEach) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        let speed = slot.speed();
        if slot.place == Place::Idle
            && slot.lane.may_go()
            && let Some(full) = self.shares.full(&slot.shares, speed, promised)
        {
            self.block(id, full);
        } else {
            self.make_ready(id);
        }
    }

    /// Lets an idle lane wait in its first share that is full. See [`shares`] for what it keeps.
    fn block(&mut self, id: LaneId, full: usize) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        let (speed, turn) = (slot.speed(), slot.turn);
        let share = match turn {
            Turn::LetIn(last) if last <= full => full,
            Turn::LetIn(_) | Turn::Keeps(..) => {
                let kept = turn.kept();
                let more = self.shares.keep(&slot.shares[kept..full], speed);
                slot.turn = Turn::Keeps(kept + more, speed);
                kept + more
            }
        };
        let keeps = slot.turn.keeps();
        let waiting = (self.shares).block_as(&slot.shares, share, speed, keeps, id);
        slot.place = Place::Blocked(waiting);
        self.watch_blocked(id);
        if turn != Turn::default() && !turn.keeps() {
            // It leaves the room that it was let in for to the next.
            self.unblock_shares_of(id);
        }
    }

    /// Ends the turn of an idle lane that does nothing with it, and leaves its room to the next.
    fn end_turn(&mut self, id: LaneId) {
        if self.forget_turn(id) {
            self.unblock_shares_of(id);
        }
    }

    /// Takes away what a lane was let in for. Returns whether that was anything.
    fn forget_turn(&mut self, id: LaneId) -> bool {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return false;
        };
        let turn = std::mem::take(&mut slot.turn);
        self.shares.give_back(&slot.shares, turn);
        turn != Turn::default()
    }

    /// Takes a lane out of the queue that it is in. Its room is left to others with the next
    /// [`unblock_shares`](Self::unblock_shares).
    fn make_idle(&mut self, id: LaneId) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut slot.place, Place::Idle) {
            Place::Idle => {}
            Place::Ready(position) => self.ready.remove(position),
            Place::Blocked(waiting) => self.shares.unblock(&slot.shares, waiting),
        }
        self.forget_turn(id);
    }

    /// Moves a lane whose speed has changed to the queue for that, and takes one out that keeps room
    /// for an attempt that it may no longer make. Their room is left to others with the next
    /// [`unblock_shares`](Self::unblock_shares).
    fn requeue(&mut self, id: LaneId) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        let speed = slot.speed();
        match slot.place {
            _ if slot.turn.keeps() && !slot.lane.may_go() => self.make_idle(id),
            Place::Ready(position) if position.speed() != speed => {
                // It may have been let in as a quick one, and may have to wait as a slow one.
                self.make_idle(id);
                self.make_ready(id);
            }
            Place::Blocked(waiting) if waiting.speed() != speed => {
                self.make_idle(id);
                self.block(id, waiting.share());
            }
            Place::Idle | Place::Ready(_) | Place::Blocked(_) => {}
        }
    }

    fn unblock_shares_of(&mut self, id: LaneId) -> PromisedOfEach {
        let Some(slot) = self.lanes.get(&id) else {
            return PromisedOfEach::default();
        };
        let shares = Arc::clone(&slot.shares);
        self.unblock_shares(&shares)
    }

    /// Makes lanes ready for which an attempt has made room. Returns what the shares of its lane have
    /// promised them.
    fn unblock_shares_after(&mut self, permit: &AttemptPermit) -> PromisedOfEach {
        let promised = self.unblock_shares(&permit.shares.of);
        let slot = self.lanes.get(&permit.lane);
        if slot.is_none_or(|slot| slot.shares == permit.shares.of) {
            return promised;
        }
        // The lane has other shares by now, and may wait there at another speed.
        self.unblock_shares_of(permit.lane)
    }

    /// Makes as many lanes ready as shares have room for, and returns what these were promised. The
    /// widest share is the first: at a host, others of it go before those of the same group.
    fn unblock_shares(&mut self, shares: &[Common]) -> PromisedOfEach {
        let mut promised_of_each = PromisedOfEach::default();
        for (common, promised) in shares.iter().zip(&mut promised_of_each).rev() {
            while let Some(id) = self.shares.next_unblocked(common, *promised) {
                // A lane that has nothing left, or waits for the end of another slow or new attempt,
                // leaves the room to the next.
                if let Some(speed) = self.let_in(id)
                    && (speed == Speed::Quick || self.workers.has_permit(speed))
                {
                    promised.add(speed);
                }
            }
        }
        promised_of_each
    }

    /// Puts a lane into the ready queue that its share lets in. Returns its speed, unless it has
    /// nothing left, or keeps the room.
    fn let_in(&mut self, id: LaneId) -> Option<Speed> {
        let slot = self.lanes.get_mut(&id)?;
        let Place::Blocked(waiting) = std::mem::replace(&mut slot.place, Place::Idle) else {
            return None;
        };
        let share = waiting.share();
        if let Turn::Keeps(kept, speed) = &mut slot.turn {
            *kept += self.shares.keep(&slot.shares[share..=share], *speed);
            if self.make_ready(id).is_none() {
                self.end_turn(id);
            }
            return None;
        }
        slot.turn = Turn::LetIn(share + 1);
        let speed = self.make_ready(id);
        if speed.is_none() {
            self.forget_turn(id);
        }
        speed
    }

    /// Sets the timer of a lane that waits for room to when a delivery becomes too old for that.
    fn watch_blocked(&mut self, id: LaneId) {
        let at = self.lanes.get(&id).and_then(|slot| slot.lane.overdue_at());
        if at.is_some() {
            self.set_timer(id, at);
        }
    }

    fn set_timer(&mut self, id: LaneId, at: Option<Instant>) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        if slot.wake_at == at {
            return;
        }
        if let Some(old) = slot.wake_at {
            self.timers.remove(&(old, id));
        }
        slot.wake_at = at;
        self.timers.extend(at.map(|at| (at, id)));
    }

    fn note_circuit(&mut self, id: LaneId, by_hand: bool) {
        let Some(slot) = self.lanes.get(&id) else {
            return;
        };
        if slot.lane.circuit_state() == slot.reported {
            self.unreported.remove(&id);
        } else {
            self.unreported.insert(id, by_hand);
        }
    }
}

/// The outcome of an attempt whose lane was removed in the meantime.
fn settle_without_lane(delivery: Box<Delivery>, attempt: &Attempt) -> Settled {
    match attempt.verdict() {
        Verdict::Delivered => Settled::Delivered(delivery),
        Verdict::Retryable => Settled::Failed(delivery, DeliveryErrorCause::Removed.into()),
        Verdict::Permanent | Verdict::Gone => {
            let cause = cause_of(attempt);
            Settled::Failed(delivery, cause.into())
        }
    }
}

#[cfg(test)]
mod tests;
