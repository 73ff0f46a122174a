use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::Notify;

use crate::broker::directory::Recipients;
use crate::{Mailbox, Message};

/// Most mailboxes that the caller of a posting serves itself. More would keep it from its
/// connection, on which replies may be waiting.
const FEW: usize = 16;

/// Most postings that wait. The caller of one more makes them all first, and its connection waits.
const MAX_POSTINGS: usize = 256;

/// Postings in the order of their arrival. Small ones are made by their caller, large ones
/// by a task.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: Mutex<VecDeque<Posting>>,
    /// Held while postings are taken out of the queue and made. Locked before the queue.
    turn: Mutex<()>,
    /// Notified when there is work for the task.
    work: Notify,
}

/// A message or a report of losses for mailboxes.
#[derive(Debug)]
pub(super) struct Posting {
    /// The mailboxes that get a report of a break first.
    pub(super) interrupted: Recipients,
    pub(super) message: Option<(Message, Recipients)>,
}

/// Which party posts what was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what was put in must be posted"]
pub(super) enum PostedBy {
    /// The caller that brought it, unless another one is at it.
    Caller,
    /// The task.
    Task,
    /// The caller that brought it, together with all before it.
    CallerAtOnce,
}

impl Backlog {
    /// Puts a posting in, after all others. Waits for nothing.
    pub(super) fn put(&self, posting: Posting) -> PostedBy {
        let is_small = posting.size() <= FEW;
        let mut queue = self.queue();
        queue.push_back(posting);
        if queue.len() > MAX_POSTINGS {
            PostedBy::CallerAtOnce
        } else if is_small && queue.len() == 1 {
            PostedBy::Caller
        } else {
            PostedBy::Task
        }
    }

    /// Makes postings as [`put`](Self::put) returned, or leaves them to the task.
    pub(super) fn proceed(&self, by: PostedBy) {
        match by {
            PostedBy::Caller => match self.turn.try_lock() {
                Ok(turn) => return self.work_off(&turn),
                Err(TryLockError::Poisoned(poisoned)) => {
                    return self.work_off(&poisoned.into_inner());
                }
                Err(TryLockError::WouldBlock) => {}
            },
            PostedBy::Task => {}
            PostedBy::CallerAtOnce => return self.work_off(&self.turn()),
        }
        self.work.notify_one();
    }

    /// Makes postings for as long as it is polled.
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

    /// Makes the next posting, if there is one.
    fn make_next(&self, _turn: &MutexGuard<'_, ()>) -> bool {
        let next = self.queue().pop_front();
        let is_some = next.is_some();
        if let Some(posting) = next {
            posting.make();
        }
        is_some
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It protects nothing that a panic could have left halfway.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Posting>> {
        // Nothing that can panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Posting {
    fn size(&self) -> usize {
        let recipients = self.message.iter().map(|(_, recipients)| recipients.len());
        self.interrupted.len() + recipients.sum::<usize>()
    }

    fn make(self) {
        self.interrupted.for_each(Mailbox::interrupted);
        if let Some((message, recipients)) = self.message {
            recipients.for_each(|mailbox| mailbox.deliver_or_queue(message.clone()));
        }
    }
}
