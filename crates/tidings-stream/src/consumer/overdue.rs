//! Handlers that run, and the claims of those that block their threads.
//!
//! A handler whose time is up is dropped before its claims expire, at whatever await it has reached.
//! One that blocks its thread reaches none. It cannot be stopped, and a second run beside it would
//! only do its work twice, so its claims are extended for it from another thread. If they expire all
//! the same and its own consumer claims a message again, the handler goes on with the new receipt.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::time_limit::margin;
use super::{Subscription, after};
use crate::MessageId;
use crate::engine::Receipt;

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

    /// Gives a new receipt to the handler that has its message. Returns `false` if there is none.
    pub(super) fn renew(&self, receipt: Receipt) -> bool {
        let mut all = self.lock();
        let Some(number) = all.by_message.get(&receipt.id).copied() else {
            return false;
        };
        let Some(running) = all.handlers.get_mut(&number) else {
            return false;
        };
        let renewed = running
            .receipts
            .iter()
            .map(|old| if old.id == receipt.id { receipt } else { *old });
        running.receipts = renewed.collect();
        true
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

    /// Records that the claims of the handler now last longer.
    pub(super) fn extended(&self, lease_end: Instant) {
        if let Some(running) = self.overdue.lock().handlers.get_mut(&self.number) {
            running.lease_end = lease_end;
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut all = self.overdue.lock();
        if let Some(running) = all.handlers.remove(&self.number) {
            for receipt in running.receipts.iter() {
                all.by_message.remove(&receipt.id);
            }
        }
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
            if let Err(error) = extended.await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "extending the claims of a blocked handler failed");
            }
        }
        tokio::select! {
            () = after(next) => {}
            () = subscription.overdue.begun.notified() => {}
        }
    }
}
