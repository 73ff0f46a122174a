//! Which lane goes next: the decisions, without the doing.
//!
//! A lane that may have something to do stands in a queue; a worker takes the first one, asks it,
//! and puts it back at the end if there may be more: round robin, in which each turn is one
//! attempt, whatever its size. A lane that cannot go on leaves the queue and comes back with the
//! event that changes that: a new delivery, the end of an attempt, a time, or room at its host.
//! So nothing here looks at all lanes, and each lane has one timer, however much waits in it.
//!
//! Turns alone are not fair when some take a millisecond and others half a minute. Hence a lane's
//! [`Standing`], one queue for each, and a rule for each about which workers it may have.

mod hosts;
mod slot;
mod turns;
mod workers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::delivery::{Delivery, Failure};
use super::lane::{Lane, LaneParts, Next, Settled, keep};
use crate::circuit_breaker::{CircuitState, Permit};
use crate::{Attempt, DeliveryErrorCause, Endpoint, EndpointId, Verdict, telemetry};
use hosts::Hosts;
use slot::{Place, Slot, host_of};
use turns::Turns;
use workers::{Hold, Workers};

pub use slot::Standing;
pub(crate) use workers::{Isolation, Limits};

/// A lane for as long as it lives. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(u64);

#[derive(Debug)]
pub(crate) struct Scheduler {
    lanes: FxHashMap<LaneId, Slot>,
    turns: Turns,
    workers: Workers,
    hosts: Hosts,
    timers: BTreeSet<(Instant, LaneId)>,
    next_lane: u64,
    /// Deliveries in all lanes.
    queued: usize,
    /// Lanes whose circuit has changed and that were not told on yet.
    changed_circuits: BTreeSet<LaneId>,
}

/// The right to one attempt, to be handed back with [`Scheduler::settle`] or
/// [`Scheduler::forget`].
#[derive(Debug)]
pub(crate) struct Ticket {
    lane: LaneId,
    host: Arc<str>,
    /// Of the endpoint.
    version: u64,
    permit: Option<Permit>,
    hold: Hold,
}

/// Something for a worker to do.
#[derive(Debug)]
pub(crate) enum Work {
    Attempt {
        id: EndpointId,
        endpoint: Endpoint,
        delivery: Box<Delivery>,
        ticket: Ticket,
    },
    Fail {
        id: EndpointId,
        delivery: Box<Delivery>,
        failure: Failure,
    },
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            lanes: FxHashMap::default(),
            turns: Turns::new(),
            workers: Workers::new(limits),
            hosts: Hosts::new(limits.per_host),
            timers: BTreeSet::new(),
            next_lane: 0,
            queued: 0,
            changed_circuits: BTreeSet::new(),
        }
    }

    pub(crate) fn add(&mut self, lane: Lane) -> LaneId {
        let id = LaneId(self.next_lane);
        self.next_lane += 1;
        let standing = match self.workers.isolation() {
            Some(_) => Standing::New,
            None => Standing::Quick,
        };
        self.lanes.insert(id, Slot::new(lane, standing));
        id
    }

    pub(crate) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id).map(|slot| &slot.lane)
    }

    /// What a lane's attempts are like at present.
    pub(crate) fn standing(&self, id: LaneId) -> Option<Standing> {
        self.lanes.get(&id).map(Slot::standing)
    }

    /// Replaces the endpoint of a lane, and its settings if there are any; what waits stays.
    pub(crate) fn change(&mut self, id: LaneId, endpoint: Endpoint, parts: Option<LaneParts>) {
        // Its place may be one at the old host.
        self.leave(id);
        if let Some(slot) = self.lanes.get_mut(&id) {
            let host = host_of(&endpoint);
            let old = std::mem::replace(&mut slot.host, host);
            slot.lane.change_endpoint(endpoint);
            if let Some(parts) = parts {
                slot.lane.reconfigure(parts);
            }
            self.let_in(&old);
        }
        self.enter(id);
        self.note_circuit(id);
    }

    /// Takes a lane out, with everything that waits in it.
    pub(crate) fn remove(&mut self, id: LaneId) -> Vec<Delivery> {
        self.leave(id);
        self.set_timer(id, None);
        self.changed_circuits.remove(&id);
        let Some(mut slot) = self.lanes.remove(&id) else {
            return Vec::new();
        };
        self.let_in(&slot.host);
        let left = slot.lane.drain();
        self.queued -= left.len();
        left
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

    /// Lets the breaker of a lane be opened or closed by hand. Whether it has one.
    pub(crate) fn switch_circuit(&mut self, id: LaneId, open: bool) -> bool {
        let breaker = self
            .lanes
            .get_mut(&id)
            .and_then(|slot| slot.lane.breaker.as_mut());
        let Some(breaker) = breaker else {
            return false;
        };
        if open {
            breaker.open();
        } else {
            breaker.close();
        }
        self.note_circuit(id);
        self.enter(id);
        true
    }

    /// A lane whose circuit has changed since it was told last, and the state that it is in now.
    pub(crate) fn next_circuit_change(&mut self) -> Option<(EndpointId, CircuitState)> {
        while let Some(id) = self.changed_circuits.pop_first() {
            if let Some(slot) = self.lanes.get_mut(&id) {
                let state = slot.lane.circuit_state();
                if state != slot.told_circuit {
                    slot.told_circuit = state;
                    if let Some(state) = state {
                        return Some((slot.lane.id.clone(), state));
                    }
                }
            }
        }
        None
    }

    pub(crate) fn push(&mut self, id: LaneId, delivery: Box<Delivery>) {
        if let Some(slot) = self.lanes.get_mut(&id) {
            slot.lane.push(delivery);
            self.queued += 1;
            self.enter(id);
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
        self.turns
            .has_next(|standing| self.workers.has_room(standing))
    }

    /// The earliest time at which a lane may have something to do that has nothing now.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Queues the lanes whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.set_timer(id, None);
            self.enter(id);
        }
    }

    /// Queues every lane that holds something: their rules have changed.
    pub(crate) fn wake_all(&mut self) {
        let ids: Vec<_> = self.lanes.keys().copied().collect();
        for id in ids {
            self.enter(id);
        }
    }

    /// What a worker does next.
    pub(crate) fn pick(&mut self, now: Instant, draining: bool) -> Option<Work> {
        loop {
            let workers = &self.workers;
            let id = self.turns.next(|standing| workers.has_room(standing))?;
            let Some(slot) = self.lanes.get_mut(&id) else {
                continue;
            };
            slot.place = Place::Nowhere;
            if !self.hosts.has_room(&slot.host) {
                slot.place = Place::Blocked(self.hosts.block(&slot.host, id));
                continue;
            }
            let next = slot.lane.take(now, draining);
            let endpoint_id = slot.lane.id.clone();
            self.note_circuit(id);
            match next {
                Next::Attempt(delivery, permit) => {
                    self.queued -= 1;
                    let Some((endpoint, ticket)) = self.begin(id, permit) else {
                        continue;
                    };
                    self.enter(id);
                    return Some(Work::Attempt {
                        id: endpoint_id,
                        endpoint,
                        delivery,
                        ticket,
                    });
                }
                Next::Fail(delivery, failure) => {
                    self.queued -= 1;
                    self.enter(id);
                    self.let_in_of(id);
                    return Some(Work::Fail {
                        id: endpoint_id,
                        delivery,
                        failure,
                    });
                }
                Next::Wait(at) => {
                    self.set_timer(id, at);
                    self.let_in_of(id);
                }
                Next::Busy | Next::Empty => self.let_in_of(id),
            }
        }
    }

    /// Takes note that an attempt has been under way for so long, and says after how long to tell
    /// again.
    pub(crate) fn still_under_way(
        &mut self,
        ticket: &mut Ticket,
        elapsed: Duration,
    ) -> Option<Duration> {
        let isolation = self.workers.isolation()?;
        if elapsed < isolation.slow_after {
            return Some(isolation.slow_after);
        }
        if self.workers.is_late(&mut ticket.hold, isolation) {
            if let Some(slot) = self.lanes.get_mut(&ticket.lane) {
                slot.late += 1;
            }
            self.requeue(ticket.lane);
        }
        let slot = self.lanes.get_mut(&ticket.lane)?;
        slot.lane.stalls(elapsed)
    }

    /// When an attempt has to be told on with [`still_under_way`](Self::still_under_way) first.
    pub(crate) fn slow_after(&self) -> Option<Duration> {
        self.workers
            .isolation()
            .map(|isolation| isolation.slow_after)
    }

    /// Takes note of an attempt, and decides what becomes of its delivery.
    pub(crate) fn settle(
        &mut self,
        ticket: &Ticket,
        delivery: Box<Delivery>,
        attempt: Attempt,
        now: Instant,
    ) -> Settled {
        let slow_after = self.slow_after();
        let Some(slot) = self.lanes.get_mut(&ticket.lane) else {
            self.end(ticket);
            return settle_without_lane(delivery, attempt);
        };
        if let Some(slow_after) = slow_after {
            slot.last = if attempt.elapsed > slow_after {
                Standing::Slow
            } else {
                Standing::Quick
            };
        }
        let settled = slot
            .lane
            .settle(delivery, ticket.version, ticket.permit, attempt, now);
        match &settled {
            Settled::Waits => self.queued += 1,
            Settled::Gone(_, left) => self.queued -= left.len(),
            Settled::Delivered(_) | Settled::Failed(..) => {}
        }
        self.end(ticket);
        settled
    }

    /// Takes note of an attempt that was broken off.
    pub(crate) fn forget(&mut self, ticket: &Ticket, now: Instant) {
        if let Some(slot) = self.lanes.get_mut(&ticket.lane) {
            slot.lane.forget(ticket.permit, now);
        }
        self.end(ticket);
    }

    fn begin(&mut self, id: LaneId, permit: Option<Permit>) -> Option<(Endpoint, Ticket)> {
        let slot = self.lanes.get(&id)?;
        let ticket = Ticket {
            lane: id,
            host: Arc::clone(&slot.host),
            version: slot.lane.version(),
            permit,
            hold: self.workers.began(slot.standing()),
        };
        self.hosts.began(&ticket.host);
        Some((slot.lane.endpoint.clone(), ticket))
    }

    fn end(&mut self, ticket: &Ticket) {
        self.workers.ended(&ticket.hold);
        self.hosts.ended(&ticket.host);
        if let Some(slot) = self.lanes.get_mut(&ticket.lane) {
            slot.late -= usize::from(ticket.hold.is_late());
        }
        self.note_circuit(ticket.lane);
        self.requeue(ticket.lane);
        self.enter(ticket.lane);
        self.let_in(&ticket.host);
    }

    /// Queues a lane that may go and stands nowhere. Whether it did.
    fn enter(&mut self, id: LaneId) -> bool {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return false;
        };
        let enters = slot.place == Place::Nowhere && slot.lane.may_go();
        if enters {
            slot.place = Place::Queued(self.turns.push(slot.standing(), id));
        }
        enters
    }

    /// Takes a lane out of where it stands.
    fn leave(&mut self, id: LaneId) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut slot.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Queued(turn) => self.turns.remove(turn),
            Place::Blocked(ticket) => self.hosts.unblock(&slot.host, ticket),
        }
    }

    /// Moves a queued lane whose standing has changed to the queue where it belongs.
    fn requeue(&mut self, id: LaneId) {
        if let Some(slot) = self.lanes.get(&id)
            && let Place::Queued(turn) = slot.place
            && turn.standing() != slot.standing()
        {
            self.leave(id);
            self.enter(id);
        }
    }

    fn let_in_of(&mut self, id: LaneId) {
        if let Some(slot) = self.lanes.get(&id) {
            let host = Arc::clone(&slot.host);
            self.let_in(&host);
        }
    }

    /// Queues as many lanes as a host has room for.
    fn let_in(&mut self, host: &str) {
        let mut promised = 0;
        while let Some(id) = self.hosts.next_unblocked(host, promised) {
            if let Some(slot) = self.lanes.get_mut(&id) {
                slot.place = Place::Nowhere;
            }
            // One that has nothing any more, or may not go, leaves the room to the next.
            promised += usize::from(self.enter(id));
        }
    }

    fn set_timer(&mut self, id: LaneId, at: Option<Instant>) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        if let Some(old) = slot.wake_at {
            self.timers.remove(&(old, id));
        }
        slot.wake_at = at;
        self.timers.extend(at.map(|at| (at, id)));
    }

    fn note_circuit(&mut self, id: LaneId) {
        let Some(slot) = self.lanes.get_mut(&id) else {
            return;
        };
        let state = slot.lane.circuit_state();
        if state != slot.seen_circuit {
            slot.seen_circuit = state;
            if let Some(state) = state {
                telemetry::circuit_changed(state);
            }
        }
        if state != slot.told_circuit {
            self.changed_circuits.insert(id);
        }
    }
}

/// The outcome of an attempt whose lane was removed meanwhile.
fn settle_without_lane(mut delivery: Box<Delivery>, attempt: Attempt) -> Settled {
    let verdict = attempt.verdict();
    keep(&mut delivery, attempt);
    match verdict {
        Verdict::Delivered => Settled::Delivered(delivery),
        Verdict::Retryable => Settled::Failed(delivery, DeliveryErrorCause::Removed.into()),
        Verdict::Permanent | Verdict::Gone => {
            let cause = delivery.last_failure();
            Settled::Failed(
                delivery,
                cause.unwrap_or(DeliveryErrorCause::Removed).into(),
            )
        }
    }
}

#[cfg(test)]
mod tests;
