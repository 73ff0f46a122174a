//! Handlers that run, and the claims of those that block their threads.
//!
//! A handler whose time is up is dropped before its claims expire, at whatever await it has reached.
//! One that blocks its thread reaches none. It cannot be stopped, and a second run beside it would
//! only do its work twice, so its claims are extended for it from another thread. If they expire all
//! the same and its own consumer claims a message again, the handler goes on with the new receipt. If
//! the handler returns while that claim is under way, what it has decided is recorded with the new
//! receipt.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    begun: Notify,
}

#[derive(Debug, Default)]
struct All {
    next_number: u64,
    handlers: HashMap<u64, Running>,
    /// Which handler has a message.
    by_message: HashMap<MessageId, u64>,
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
pub(super) enum Again {
    /// Its handler runs and goes on with the new receipt.
    Running,
    /// Its handler has ended, and this is how, with the new receipt.
    Ended(Settling),
    /// No handler has it.
    Free,
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
    number: u64,
}

impl Overdue {
    /// Registers a handler that is about to run.
    pub(super) fn register(&self, receipts: Arc<[Receipt]>, lease_end: Instant) -> Registered<'_> {
        let mut all = self.lock();
        let number = all.next_number;
        all.next_number += 1;
        let messages = receipts.iter().map(|receipt| (receipt.id, number));
        all.by_message.extend(messages);
        let running = Running {
            receipts,
            lease_end,
            extensions: 0,
        };
        all.handlers.insert(number, running);
        if all.handlers.len() == 1 {
            self.begun.notify_one();
        }
        drop(all);
        Registered {
            overdue: self,
            number,
        }
    }

    /// Gives a new receipt to the handler that has its message, or had it until a moment ago.
    pub(super) fn renew(&self, receipt: Receipt) -> Again {
        let mut all = self.lock();
        let All {
            handlers,
            by_message,
            late,
            ..
        } = &mut *all;
        let number = by_message.get(&receipt.id);
        let Some(running) = number.and_then(|number| handlers.get_mut(number)) else {
            return late.remove(&receipt.id).map_or(Again::Free, |late| {
                let mut end = late.end;
                end.settlement.receipt = receipt;
                Again::Ended(end)
            });
        };
        let renewed = running
            .receipts
            .iter()
            .map(|old| if old.id == receipt.id { receipt } else { *old });
        running.receipts = renewed.collect();
        Again::Running
    }

    /// Notes that the store was asked to record late ends.
    pub(super) fn late_ones_tried(&self, messages: &[MessageId]) {
        let mut all = self.lock();
        for id in messages {
            if let Some(late) = all.late.get_mut(id) {
                late.was_tried = true;
            }
        }
    }

    /// Forgets the late ends that the store was asked to record: a claim that begins after that does not
    /// find their messages.
    pub(super) fn forget_late_ones(&self) {
        self.lock().late.retain(|_, late| !late.was_tried);
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
        for running in self.lock().handlers.values_mut() {
            if running.extensions >= MAX_EXTENSIONS {
                continue;
            }
            let time = running.lease_end - margin;
            if time <= now {
                running.extensions += 1;
                running.lease_end = now + visibility;
                due.push(Arc::clone(&running.receipts));
            } else {
                let wait = time - now;
                next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
            }
        }
        (due, next)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Every statement leaves the maps consistent, so a poisoned lock can be used.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered<'_> {
    /// The receipts of the handler's messages, as they are now.
    pub(super) fn receipts(&self) -> Arc<[Receipt]> {
        let all = self.overdue.lock();
        let running = all.handlers.get(&self.number);
        running.map_or_else(|| Arc::from([]), |running| Arc::clone(&running.receipts))
    }

    /// Says that the handler has ended, and decides with the receipts as they are now what becomes of its
    /// messages. What is late is remembered.
    pub(super) fn end(
        self,
        is_late: bool,
        decide: impl FnOnce(&[Receipt]) -> Vec<Settling>,
    ) -> Vec<Settling> {
        let mut all = self.overdue.lock();
        let receipts = all.remove(self.number);
        let ends = decide(&receipts);
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
        }
        ends
    }

    /// Records that the claims of the handler now last longer.
    pub(super) fn extended(&self, lease_end: Instant) {
        if let Some(running) = self.overdue.lock().handlers.get_mut(&self.number) {
            running.lease_end = lease_end;
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.overdue.lock().remove(self.number);
    }
}

impl All {
    /// Removes a handler, and returns the receipts of its messages.
    fn remove(&mut self, number: u64) -> Arc<[Receipt]> {
        let Some(running) = self.handlers.remove(&number) else {
            return Arc::from([]);
        };
        for receipt in running.receipts.iter() {
            self.by_message.remove(&receipt.id);
        }
        running.receipts
    }
}

/// Extends the claims of blocking handlers for as long as it is polled.
pub(super) async fn keep(subscription: &Subscription) -> Infallible {
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
                Ok(_) => subscription.extended(),
                Err(error) => subscription.not_extended(&error),
            }
        }
        tokio::select! {
            () = after(next) => {}
            () = subscription.overdue.begun.notified() => {}
        }
    }
}
