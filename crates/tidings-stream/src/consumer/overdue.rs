//! Handlers that run, and the claims of those that block their threads.
//!
//! A handler whose time is up is dropped before its claims expire, at whatever await it has reached.
//! One that blocks its thread reaches none. It cannot be stopped, and a second run beside it would
//! only do its work twice, so its claims are extended for it from another thread. If they expire all
//! the same and its own consumer claims a message again, the handler continues with the new receipt. If
//! the handler returns while that claim is under way, what it has decided is recorded with the new
//! receipt.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settler::Settling;
use super::time_limit::margin;
use super::{Subscription, after};
use crate::MessageId;
use crate::engine::{Outcome, Receipt};

/// How often the claims of one handler are extended for it. Then it counts as hanging, and its
/// messages are delivered again.
const MAX_EXTENSIONS: u32 = 8;

/// The handlers of one consumer that run.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    running: Mutex<All>,
    /// Whether there are late ends, without the lock.
    has_late_ones: AtomicBool,
    begun: Notify,
}

#[derive(Debug, Default)]
struct All {
    /// Each in a place of its own; the free places are used again.
    handlers: Vec<Option<Running>>,
    free: Vec<usize>,
    /// When [`keep`] looks next, as the end of the claims that it looks for; `None` while it waits for
    /// a handler to begin.
    watched: Option<Instant>,
    /// How messages ended for good whose claims may have expired before, until the store has recorded it
    /// and no claim is under way. No more than handlers can have at once.
    late: HashMap<MessageId, Late>,
}

#[derive(Debug)]
struct Late {
    end: Settling,
    was_tried: bool,
}

/// What becomes of a message that its own consumer has claimed again.
#[derive(Debug)]
pub(super) enum Reclaimed {
    /// Its handler runs and continues with the new receipt.
    Running,
    /// Its handler has ended, and this is how, with the new receipt.
    Ended(Settling),
}

#[derive(Debug)]
struct Running {
    receipts: Arc<[Receipt]>,
    lease_end: Instant,
    extensions: u32,
}

/// A handler that runs. Dropping it says that the handler has ended.
pub(super) struct Registered<'a> {
    overdue: &'a Overdue,
    /// `None` once it has ended.
    place: Option<usize>,
}

impl Overdue {
    /// Registers a handler that is about to run, and lets [`keep`] look for it.
    pub(super) async fn register(
        &self,
        receipts: Arc<[Receipt]>,
        lease_end: Instant,
    ) -> Registered<'_> {
        let (registered, is_watched) = self.enter(receipts, lease_end);
        if !is_watched {
            self.begun.notify_one();
            // The task that was woken is the next one of this thread, and if the handler blocked it now, of
            // no other.
            tokio::task::yield_now().await;
        }
        registered
    }

    /// Returns whether [`keep`] looks early enough.
    fn enter(&self, receipts: Arc<[Receipt]>, lease_end: Instant) -> (Registered<'_>, bool) {
        let mut all = self.running.lock();
        let running = Some(Running {
            receipts,
            lease_end,
            extensions: 0,
        });
        let free = all.free.pop();
        let place = free.unwrap_or(all.handlers.len());
        match all.handlers.get_mut(place) {
            Some(slot) => *slot = running,
            None => all.handlers.push(running),
        }
        let is_watched = all.watched.is_some_and(|watched| watched <= lease_end);
        if !is_watched {
            all.watched = Some(lease_end);
        }
        let registered = Registered {
            overdue: self,
            place: Some(place),
        };
        (registered, is_watched)
    }

    /// Gives new receipts to the handlers that have their messages, or had them until a moment ago, and
    /// returns which messages those are. No handler has the others.
    pub(super) fn renew(&self, receipts: &[Receipt]) -> HashMap<MessageId, Reclaimed> {
        let mut claimed: HashMap<MessageId, Receipt> = receipts
            .iter()
            .map(|receipt| (receipt.id, *receipt))
            .collect();
        let mut found = HashMap::new();
        let mut all = self.running.lock();
        for running in all.handlers.iter_mut().flatten() {
            if !running
                .receipts
                .iter()
                .any(|old| claimed.contains_key(&old.id))
            {
                continue;
            }
            let renewed = running.receipts.iter().map(|old| {
                let new = claimed.remove(&old.id);
                found.extend(new.map(|new| (new.id, Reclaimed::Running)));
                new.unwrap_or(*old)
            });
            running.receipts = renewed.collect();
        }
        for receipt in claimed.into_values() {
            if let Some(late) = all.late.remove(&receipt.id) {
                let mut end = late.end;
                end.settlement.receipt = receipt;
                found.insert(receipt.id, Reclaimed::Ended(end));
            }
        }
        found
    }

    /// How many messages handlers have.
    pub(super) fn in_hand(&self) -> u64 {
        let all = self.running.lock();
        let running = all.handlers.iter().flatten();
        running.map(|it| it.receipts.len() as u64).sum()
    }

    /// Notes that the store was asked to record late ends.
    pub(super) fn late_ones_tried(&self, messages: &[MessageId]) {
        let mut all = self.running.lock();
        for id in messages {
            if let Some(late) = all.late.get_mut(id) {
                late.was_tried = true;
            }
        }
    }

    /// Forgets the late ends that the store was asked to record: a claim that begins after that does not
    /// find their messages.
    pub(super) fn forget_late_ones(&self) {
        if self.has_late_ones.load(Ordering::Acquire) {
            let mut all = self.running.lock();
            all.late.retain(|_, late| !late.was_tried);
            self.has_late_ones
                .store(!all.late.is_empty(), Ordering::Release);
        }
    }

    /// The claims that expire within `margin`, which are taken to be extended by `visibility`, and the
    /// time until the next ones expire.
    fn due(
        &self,
        margin: Duration,
        visibility: Duration,
    ) -> (Vec<Arc<[Receipt]>>, Option<Duration>) {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut next = None;
        let mut all = self.running.lock();
        for running in all.handlers.iter_mut().flatten() {
            if running.extensions >= MAX_EXTENSIONS {
                continue;
            }
            if running.lease_end - margin <= now {
                running.extensions += 1;
                running.lease_end = now + visibility;
                due.push(Arc::clone(&running.receipts));
            }
            let lease_end = running.lease_end;
            next = Some(next.map_or(lease_end, |next: Instant| next.min(lease_end)));
        }
        all.watched = next;
        (
            due,
            next.map(|next| (next - margin).saturating_duration_since(now)),
        )
    }
}

impl Registered<'_> {
    /// The receipts of the handler's messages, as they are now.
    pub(super) fn receipts(&self) -> Arc<[Receipt]> {
        let mut all = self.overdue.running.lock();
        let running = all.running(self.place);
        running.map_or_else(|| Arc::from([]), |running| Arc::clone(&running.receipts))
    }

    /// Says that the handler has ended, and returns the ends of its messages, in their order, with the
    /// receipts as they are now. What is late is remembered.
    pub(super) fn end(mut self, is_late: bool, mut ends: Vec<Settling>) -> Vec<Settling> {
        let mut all = self.overdue.running.lock();
        let receipts = all.remove(self.place.take());
        for (end, receipt) in ends.iter_mut().zip(&*receipts) {
            end.settlement.receipt = *receipt;
        }
        if is_late {
            let last = ends.iter().filter(|end| {
                let outcome = &end.settlement.outcome;
                matches!(outcome, Outcome::Acknowledged | Outcome::Dead { .. })
            });
            let late = last.cloned().map(|end| {
                let was_tried = false;
                (end.id(), Late { end, was_tried })
            });
            all.late.extend(late);
            self.overdue
                .has_late_ones
                .store(!all.late.is_empty(), Ordering::Release);
        }
        ends
    }

    /// Records that the claims of the handler now last longer.
    pub(super) fn extended(&self, lease_end: Instant) {
        if let Some(running) = self.overdue.running.lock().running(self.place) {
            running.lease_end = lease_end;
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.overdue.running.lock().remove(self.place.take());
        }
    }
}

impl All {
    /// The handler at a place.
    fn running(&mut self, place: Option<usize>) -> Option<&mut Running> {
        self.handlers.get_mut(place?)?.as_mut()
    }

    /// Frees a place, and returns the receipts of the handler that had it.
    fn remove(&mut self, place: Option<usize>) -> Arc<[Receipt]> {
        let slot = place.and_then(|place| self.handlers.get_mut(place));
        let Some(running) = slot.and_then(Option::take) else {
            return Arc::from([]);
        };
        self.free.extend(place);
        running.receipts
    }
}

/// Extends the claims of blocking handlers until it is aborted.
pub(super) async fn keep(subscription: Arc<Subscription>) -> Infallible {
    let visibility = subscription.options.visibility_timeout;
    // Later than handlers are dropped that can be.
    let margin = margin(visibility) / 2;
    let group = subscription.group();
    loop {
        let (due, next) = subscription.overdue.due(margin, visibility);
        for receipts in due {
            tracing::warn!(
                stream = %group.stream, group = %group.group, messages = receipts.len(),
                "a handler is past its time and cannot be dropped: it blocks its thread"
            );
            let extended = subscription.engine.extend(group, receipts, visibility);
            match extended.await {
                Ok(_) => subscription.extending.lock().worked(),
                Err(error) => subscription.extending.lock().failed(&error),
            }
        }
        tokio::select! {
            () = after(next) => {}
            () = subscription.overdue.begun.notified() => {}
        }
    }
}
