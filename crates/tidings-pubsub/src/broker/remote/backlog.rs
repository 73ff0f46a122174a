use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::Notify;

use crate::broker::directory::Recipients;
use crate::{Mailbox, Message};

/// Most mailboxes that the caller of a delivery serves itself. More would keep it from its
/// connection, on which replies may be waiting.
const FEW: usize = 16;

/// Most deliveries that wait. The caller of one more makes them all first, and its connection waits.
const MAX_DELIVERIES: usize = 256;

/// Deliveries that have arrived, in their order. Small ones are made by their caller, large ones
/// by a task.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: Mutex<VecDeque<Delivery>>,
    /// Held while deliveries are taken out of the queue and made. Locked before the queue.
    turn: Mutex<()>,
    /// Notified when there is work for the task.
    work: Notify,
}

/// A message or a report of losses for mailboxes.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The mailboxes that get a report of a break first.
    pub(super) interrupted: Recipients,
    pub(super) message: Option<(Message, Recipients)>,
}

/// Which party makes a delivery that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the deliveries must be made"]
pub(super) enum Next {
    /// The caller that brought it, unless another one is at it.
    Bringer,
    /// The task.
    Task,
    /// The caller that brought it, together with all before it.
    BringerAtOnce,
}

impl Backlog {
    /// Puts a delivery in, after all others. Waits for nothing.
    pub(super) fn put(&self, delivery: Delivery) -> Next {
        let is_small = delivery.size() <= FEW;
        let mut queue = self.queue();
        queue.push_back(delivery);
        if queue.len() > MAX_DELIVERIES {
            Next::BringerAtOnce
        } else if is_small && queue.len() == 1 {
            Next::Bringer
        } else {
            Next::Task
        }
    }

    /// Makes deliveries as [`put`](Self::put) returned, or leaves them to the task.
    pub(super) fn proceed(&self, next: Next) {
        match next {
            Next::Bringer => match self.turn.try_lock() {
                Ok(turn) => return self.work_off(&turn),
                Err(TryLockError::Poisoned(poisoned)) => {
                    return self.work_off(&poisoned.into_inner());
                }
                Err(TryLockError::WouldBlock) => {}
            },
            Next::Task => {}
            Next::BringerAtOnce => return self.work_off(&self.turn()),
        }
        self.work.notify_one();
    }

    /// Makes deliveries for as long as it is polled.
    pub(super) async fn serve(&self) {
        loop {
            self.work.notified().await;
            while self.make_next(&self.turn()) {
                // Each can be a matter of many mailboxes.
                tokio::task::consume_budget().await;
            }
        }
    }

    fn work_off(&self, turn: &MutexGuard<'_, ()>) {
        while self.make_next(turn) {}
    }

    /// Makes the next delivery, if there is one.
    fn make_next(&self, _turn: &MutexGuard<'_, ()>) -> bool {
        let next = self.queue().pop_front();
        let is_some = next.is_some();
        if let Some(delivery) = next {
            delivery.make();
        }
        is_some
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It protects nothing that a panic could have left halfway.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        // Nothing that can panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    fn size(&self) -> usize {
        let recipients = self.message.iter().map(|(_, recipients)| recipients.len());
        self.interrupted.len() + recipients.sum::<usize>()
    }

    fn make(self) {
        self.interrupted.for_each(Mailbox::interrupted);
        if let Some((message, recipients)) = self.message {
            recipients.for_each(|mailbox| mailbox.post(message.clone()));
        }
    }
}
