//! One lane in memory: the deliveries that the dispatcher has, and what the feeder has to know.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tidings::retry::RetryPolicy;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feeder::Course;
use crate::store::DueDelivery;
use crate::{DeliveryId, EndpointId};

/// How long a look at the store counts: what other instances change is seen after this time.
const LOOK_AGE: Duration = Duration::from_millis(1500);

/// Most bytes of payloads of one page, after its first delivery.
pub(super) const PAGE_BYTES: usize = 256 << 10;

/// A lane that this instance serves, or has served and still has attempts of under way.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: EndpointId,
    /// Its name in the dispatcher.
    pub(super) key: tidings::EndpointId,
    /// When its lease was taken: a renewal that began earlier does not include it.
    pub(super) leased_at: Instant,
    /// Ends the feeder, which then gives the lane back if it still has it.
    pub(super) stop: CancellationToken,
    /// For how long its circuit opens next, if it was not closed when another instance gave the lane back.
    pub(super) left_open_for: Option<Duration>,
    /// Whether the lease was lost, so that there is nothing to give back.
    pub(super) is_lost: AtomicBool,
    contents: Arc<Contents>,
}

/// What outlasts a lease: attempts of an earlier one may still be under way.
#[derive(Debug, Default)]
struct Contents {
    /// Wakes the feeder: an outcome was written, or there is new work, or the endpoint changed.
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the dispatcher has, and what had an outcome that is not written yet, by the message's id.
    held: HashMap<String, Held>,
    /// Deliveries that were made since the store was looked at, to be sent without another look.
    handed: VecDeque<DueDelivery>,
    handed_bytes: usize,
    /// How many looks at the store have begun.
    looks: u64,
    /// When the store was looked at and had nothing due but what is here.
    known_at: Option<Instant>,
    /// How many deliveries may be here.
    room: usize,
    /// Whether something may be due that is not here.
    has_new_work: bool,
    /// Whether the endpoint was changed since the store was looked at.
    is_changed: bool,
    /// When the first delivery of those that were made or tried since the store was looked at is due.
    next_due: Option<Timestamp>,
    blocked_until: Option<Instant>,
    revision: u64,
    /// What the feeder knew when it last ended.
    course: Option<Box<Course>>,
}

/// A delivery that the dispatcher has.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) delivery: DeliveryId,
    /// Attempts since it was last begun.
    pub(super) tries: u32,
    /// Since when it was due as it was handed over.
    pub(super) due_at: Timestamp,
    /// Whether it may have been begun again since, so that the store is to be asked when its outcome is written.
    pub(super) is_begun_again: bool,
    pub(super) retry: Arc<RetryPolicy>,
    /// The revision of the endpoint under which it was handed over.
    pub(super) revision: u64,
}

/// What there is when a look at the store begins.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) held: Vec<DeliveryId>,
    /// Whether the endpoint is to be read again, whatever its revision.
    pub(super) is_changed: bool,
}

/// What the feeder looks at when it decides whether to continue.
#[derive(Debug)]
pub(super) struct View {
    pub(super) held: usize,
    pub(super) handed: usize,
    pub(super) has_new_work: bool,
    pub(super) is_changed: bool,
    pub(super) next_due: Option<Timestamp>,
    pub(super) blocked_until: Option<Instant>,
}

/// Shows that nothing was due in a lane but what it had, from when the ticket was given until it is used.
///
/// A delivery that is made meanwhile can have been read by no other lane and no other instance: it may be handed to
/// this one.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) lane: Arc<Lane>,
    looks: u64,
}

impl Lane {
    pub(super) fn new(
        endpoint: EndpointId,
        left_open_for: Option<Duration>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            endpoint,
            key: endpoint.to_string().into(),
            leased_at: Instant::now(),
            stop,
            left_open_for,
            is_lost: AtomicBool::new(false),
            contents: Arc::default(),
        }
    }

    /// The same lane under a new lease.
    pub(super) fn again(&self, left_open_for: Option<Duration>, stop: CancellationToken) -> Self {
        Self {
            endpoint: self.endpoint,
            key: self.key.clone(),
            leased_at: Instant::now(),
            stop,
            left_open_for,
            is_lost: AtomicBool::new(false),
            contents: Arc::clone(&self.contents),
        }
    }

    /// What follows from what is fed into the dispatcher has this span around it.
    pub(super) fn span(&self) -> tracing::Span {
        tracing::debug_span!("webhook_lane", endpoint = %self.endpoint)
    }

    /// Waits for a change, from the last one that was noticed on.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.contents.changed.notified()
    }

    pub(super) fn view(&self) -> View {
        let mut state = self.lock();
        let now = Instant::now();
        if state.blocked_until.is_some_and(|until| until <= now) {
            state.blocked_until = None;
        }
        View {
            held: state.held.len(),
            handed: state.handed.len(),
            has_new_work: state.has_new_work,
            is_changed: state.is_changed,
            next_due: state.next_due,
            blocked_until: state.blocked_until,
        }
    }

    /// Begins another look at the store, and forgets what the last one found.
    pub(super) fn begin_look(&self) -> Before {
        let mut state = self.lock();
        // They are in the store, and are read there.
        state.forget_handed();
        state.looks += 1;
        state.has_new_work = false;
        state.next_due = None;
        Before {
            held: state.held.values().map(|held| held.delivery).collect(),
            is_changed: std::mem::take(&mut state.is_changed),
        }
    }

    /// Notes that a look which began then has found all that is due.
    pub(super) fn knows_all(&self, since: Instant) {
        self.lock().known_at = Some(since);
    }

    /// When it was last known that all that is due is here.
    pub(super) fn known_at(&self) -> Option<Instant> {
        self.lock().known_at
    }

    /// Says how many deliveries may be here.
    pub(super) fn set_room(&self, room: usize) {
        self.lock().room = room;
    }

    /// A ticket, if all that is due is here.
    pub(super) fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let state = self.lock();
        state.takes_handed().then(|| Ticket {
            lane: Arc::clone(self),
            looks: state.looks,
        })
    }

    /// Takes a delivery that was made while the ticket was valid. Without room, or if the store was looked
    /// at meanwhile, it is read from there.
    pub(super) fn hand(&self, ticket: &Ticket, delivery: DueDelivery, bytes: usize) {
        let mut state = self.lock();
        let is_valid = state.takes_handed() && state.looks == ticket.looks;
        let has_room = state.held.len() + state.handed.len() < state.room
            && (state.handed.is_empty() || state.handed_bytes + bytes <= PAGE_BYTES);
        if is_valid && has_room {
            state.handed.push_back(delivery);
            state.handed_bytes += bytes;
        } else {
            state.has_new_work = true;
        }
        drop(state);
        self.contents.changed.notify_one();
    }

    /// The next delivery that was handed over, unless the store is to be looked at first.
    pub(super) fn next_handed(&self) -> Option<DueDelivery> {
        let mut state = self.lock();
        if state.has_new_work || state.is_changed {
            return None;
        }
        let next = state.handed.pop_front();
        if state.handed.is_empty() {
            state.handed_bytes = 0;
        }
        next
    }

    /// Whether there is nothing to do before a known time, but for what the dispatcher has.
    pub(super) fn is_fed(&self) -> bool {
        self.lock().is_fed()
    }

    /// Whether there is nothing to do before a known time.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.held.is_empty() && state.is_fed()
    }

    /// Keeps what the feeder knows until it goes on.
    pub(super) fn keep(&self, course: Box<Course>) {
        self.lock().course = Some(course);
    }

    pub(super) fn take_course(&self) -> Option<Box<Course>> {
        self.lock().course.take()
    }

    /// Forgets what was known of the store, because the lane is given back: others may have it then.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.forget_handed();
        state.course = None;
    }

    pub(super) fn hold(&self, message_id: &str, held: Held) {
        self.lock().held.insert(message_id.to_owned(), held);
    }

    pub(super) fn held(&self, message_id: &str) -> Option<Held> {
        self.lock().held.get(message_id).cloned()
    }

    pub(super) fn let_go(&self, message_id: &str) {
        self.lock().held.remove(message_id);
        self.contents.changed.notify_one();
    }

    /// Lets go of deliveries whose outcomes are written, and notes when the first of them is due again. Returns whether
    /// the lane has to be fed for that, or for something else.
    pub(super) fn written<'a>(
        &self,
        message_ids: impl Iterator<Item = &'a str>,
        due: Option<Timestamp>,
    ) -> bool {
        let mut state = self.lock();
        // At once: a look in between would pass over what is held, and forget when it is due.
        state.next_due = [state.next_due, due].into_iter().flatten().min();
        for id in message_ids {
            let held = state.held.remove(id);
            state.has_new_work |= held.is_some_and(|held| held.is_begun_again);
        }
        let has_more = due.is_some() || !state.is_fed();
        drop(state);
        self.contents.changed.notify_one();
        has_more
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    pub(super) fn add_work(&self) {
        self.lock().has_new_work = true;
        self.contents.changed.notify_one();
    }

    /// Notes that a delivery is due at a time.
    pub(super) fn note_due(&self, due: Timestamp) {
        let mut state = self.lock();
        state.next_due = [state.next_due, Some(due)].into_iter().flatten().min();
        drop(state);
        self.contents.changed.notify_one();
    }

    /// Sends nothing until then.
    pub(super) fn block(&self, until: Instant) {
        let mut state = self.lock();
        state.blocked_until = state.blocked_until.max(Some(until));
        // What comes meanwhile is not handed over.
        state.has_new_work = true;
        drop(state);
        self.contents.changed.notify_one();
    }

    /// Notes which revision of the endpoint is in use.
    pub(super) fn uses(&self, revision: u64) {
        self.lock().revision = revision;
    }

    /// Whether this revision of the endpoint is in use.
    pub(super) fn is_using(&self, revision: u64) -> bool {
        self.lock().revision == revision
    }

    /// Looks at the endpoint again at once, and ends its block. Deliveries that are here may have been begun again.
    pub(super) fn unblock(&self) {
        let mut state = self.lock();
        state.blocked_until = None;
        state.is_changed = true;
        for held in state.held.values_mut() {
            held.is_begun_again = true;
        }
        drop(state);
        self.contents.changed.notify_one();
    }

    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.stop.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a poisoned lock is still right.
        self.contents
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn takes_handed(&self) -> bool {
        let is_blocked = self
            .blocked_until
            .is_some_and(|until| until > Instant::now());
        let is_known = self
            .known_at
            .is_some_and(|since| since.elapsed() < LOOK_AGE);
        is_known && !is_blocked && !self.has_new_work && !self.is_changed
    }

    fn is_fed(&self) -> bool {
        self.handed.is_empty() && !self.has_new_work && !self.is_changed
    }

    fn forget_handed(&mut self) {
        self.known_at = None;
        self.handed.clear();
        self.handed_bytes = 0;
    }
}
