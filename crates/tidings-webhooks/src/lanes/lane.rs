//! One lane in memory: the deliveries that the dispatcher has, and what the feeder has to know.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tidings::retry::RetryPolicy;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{DeliveryId, EndpointId};

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
    has_new_work: bool,
    /// Whether the endpoint was changed since the store was looked at.
    is_changed: bool,
    /// The earliest retry that an outcome has made.
    next_retry: Option<Timestamp>,
    blocked_until: Option<Instant>,
    revision: u64,
}

/// A delivery that the dispatcher has.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) delivery: DeliveryId,
    /// Attempts since it was last begun.
    pub(super) tries: u32,
    pub(super) retry: Arc<RetryPolicy>,
}

/// What the feeder looks at when it decides whether to continue.
#[derive(Debug)]
pub(super) struct View {
    pub(super) held: usize,
    pub(super) has_new_work: bool,
    pub(super) is_changed: bool,
    pub(super) next_retry: Option<Timestamp>,
    pub(super) blocked_until: Option<Instant>,
}

impl Lane {
    pub(super) fn new(endpoint: EndpointId, stop: CancellationToken) -> Self {
        Self {
            endpoint,
            key: endpoint.to_string().into(),
            leased_at: Instant::now(),
            stop,
            is_lost: AtomicBool::new(false),
            contents: Arc::default(),
        }
    }

    /// The same lane under a new lease.
    pub(super) fn again(&self, stop: CancellationToken) -> Self {
        Self {
            endpoint: self.endpoint,
            key: self.key.clone(),
            leased_at: Instant::now(),
            stop,
            is_lost: AtomicBool::new(false),
            contents: Arc::clone(&self.contents),
        }
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
            has_new_work: state.has_new_work,
            is_changed: state.is_changed,
            next_retry: state.next_retry,
            blocked_until: state.blocked_until,
        }
    }

    /// Begins another look at the store, and forgets what the last one found. Returns what is held.
    pub(super) fn begin_look(&self) -> Vec<DeliveryId> {
        let mut state = self.lock();
        state.has_new_work = false;
        state.is_changed = false;
        state.next_retry = None;
        state.held.values().map(|held| held.delivery).collect()
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

    /// Lets go of deliveries whose outcomes are written.
    pub(super) fn written<'a>(&self, message_ids: impl Iterator<Item = &'a str>) {
        let mut state = self.lock();
        for id in message_ids {
            state.held.remove(id);
        }
        drop(state);
        self.contents.changed.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    pub(super) fn add_work(&self) {
        self.lock().has_new_work = true;
        self.contents.changed.notify_one();
    }

    pub(super) fn note_retry(&self, due: Timestamp) {
        let mut state = self.lock();
        state.next_retry = Some(state.next_retry.map_or(due, |next| next.min(due)));
    }

    /// Sends nothing until then.
    pub(super) fn block(&self, until: Instant) {
        let mut state = self.lock();
        state.blocked_until = state.blocked_until.max(Some(until));
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

    /// Looks at the endpoint again at once, and ends its block.
    pub(super) fn unblock(&self) {
        let mut state = self.lock();
        state.blocked_until = None;
        state.is_changed = true;
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
