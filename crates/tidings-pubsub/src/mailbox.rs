use std::collections::VecDeque;
use std::fmt;
use std::ops::AddAssign;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::panics::catch;
use crate::{Lagged, Message, Overflow, Received, SubscribeOptions, telemetry};

/// Messages that may wait for room where no publisher can: see [`Mailbox::deliver_or_queue`].
const MAX_QUEUED: usize = 1024;

/// Longest time that a message waits for room: a longer wait would overflow the clock.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The bounded buffer between a broker and one [`Subscription`](crate::Subscription).
///
/// Brokers put messages in; the subscription takes them out. Clones are the same mailbox. None of
/// its functions waits, but for the future that [`deliver`](Self::deliver) may return.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    options: SubscribeOptions,
    state: Mutex<State>,
    /// Notified of each place that becomes free, when publishers wait for it.
    room: Notify,
}

#[derive(Default)]
struct State {
    /// What can be read, without more than that: of many thousand mailboxes each is touched by every
    /// message.
    ready: VecDeque<Message>,
    /// The number of the first message that is ready.
    first: u64,
    /// What was missed right before the messages of these numbers, in their order.
    gaps: VecDeque<(u64, Missed)>,
    /// Those that wait for room, and until when; empty while there is room.
    queued: VecDeque<(Instant, QueuedMessage)>,
    /// What was missed after the last message, queued or ready.
    missed: Missed,
    closed: bool,
    reader: Option<Waker>,
}

/// One that waits for room.
struct QueuedMessage {
    /// What was missed between the message before and this one.
    missed: Missed,
    message: Message,
}

#[derive(Default, Clone, Copy)]
struct Missed {
    messages: u64,
    uncounted: bool,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(options: SubscribeOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                state: Mutex::default(),
                room: Notify::new(),
            }),
        }
    }

    /// Puts a message in, or does what [`Overflow`] says when there is no room. A closed mailbox
    /// takes nothing.
    ///
    /// With [`Overflow::Wait`] and no room it returns what waits for room; a broker settles it after
    /// it has delivered to all others.
    pub fn deliver(&self, message: Message) -> Option<Waiting> {
        let mut displaced = None;
        let mut state = self.shared.lock();
        if state.closed {
            return None;
        }
        if state.ready.len() >= self.shared.options.capacity() {
            match self.shared.options.overflow() {
                Overflow::DropOldest => displaced = state.take_oldest(),
                Overflow::DropNewest => {
                    // No reader waits: there are messages to read.
                    state.missed.messages += 1;
                    drop(state);
                    self.count_dropped(1);
                    return None;
                }
                Overflow::Wait(limit) => {
                    return Some(Waiting {
                        mailbox: self.clone(),
                        message: Some(message),
                        limit: limit.min(MAX_WAIT),
                    });
                }
            }
        }
        state.push(message);
        release(state);
        // Without the lock: a recorder of metrics and the owner of a payload may do anything.
        self.count_dropped(displaced.iter().len());
        drop(displaced);
        None
    }

    /// Puts a message in like [`deliver`](Self::deliver), for a broker that cannot make publishers
    /// wait because they are in other processes.
    ///
    /// With [`Overflow::Wait`] and no room the message waits by itself, in a queue of at most 1,024;
    /// it is missed when its time is over or the queue is full.
    pub fn deliver_or_queue(&self, message: Message) {
        let Overflow::Wait(limit) = self.shared.options.overflow() else {
            // No other choice makes a publisher wait.
            drop(self.deliver(message));
            return;
        };
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        let now = Instant::now();
        let expired = state.admit_queued(self.shared.options.capacity(), now);
        let mut dropped = expired.len();
        if state.ready.len() < self.shared.options.capacity() {
            state.push(message);
        } else if state.queued.len() < MAX_QUEUED {
            let missed = std::mem::take(&mut state.missed);
            let queued = QueuedMessage { missed, message };
            state.queued.push_back((now + limit.min(MAX_WAIT), queued));
        } else {
            state.missed.messages += 1;
            dropped += 1;
        }
        release(state);
        self.count_dropped(dropped);
        drop(expired);
    }

    /// Reports that messages may have been missed here, and were not counted.
    pub fn interrupted(&self) {
        let mut state = self.shared.lock();
        if !state.closed {
            state.missed.uncounted = true;
            release(state);
        }
    }

    /// Takes nothing more. What is in it can still be read, and then the subscription ends.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        release(state);
        self.shared.room.notify_waiters();
    }

    /// Closes, and throws away what is in it: it will not be read.
    pub(crate) fn abandon(&self) {
        self.close();
        let mut state = self.shared.lock();
        let unread = std::mem::take(&mut state.ready);
        let waiting = std::mem::take(&mut state.queued);
        drop(state);
        drop((unread, waiting));
    }

    /// What comes next; `None` when there will be nothing more. There is one reader.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        // A mailbox that is never empty must not keep its reader's task from yielding.
        let budget = ready!(tokio::task::coop::poll_proceed(cx));
        let mut state = self.shared.lock();
        let next = state.take_next();
        let capacity = self.shared.options.capacity();
        let expired = if state.queued.is_empty() {
            Vec::new()
        } else {
            state.admit_queued(capacity, Instant::now())
        };
        if next.is_none() && !state.closed {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.count_dropped(expired.len());
        drop(expired);
        budget.made_progress();
        if let Some(received) = &next {
            telemetry::received(received);
        }
        let may_wait = matches!(self.shared.options.overflow(), Overflow::Wait(_));
        if may_wait && matches!(next, Some(Received::Message(_))) {
            self.shared.room.notify_one();
        }
        Poll::Ready(next)
    }

    fn count_dropped(&self, messages: usize) {
        telemetry::dropped(messages, self.shared.options.overflow());
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Mailbox")
            .field("options", &self.shared.options)
            .field("unread", &state.ready.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

/// A message that waits for room in a mailbox ([`Overflow::Wait`]).
///
/// Dropped before it is settled, it counts as missed.
#[derive(Debug)]
#[must_use = "the message is dropped unless it is settled"]
pub struct Waiting {
    mailbox: Mailbox,
    message: Option<Message>,
    limit: Duration,
}

impl Waiting {
    /// Puts the message in once there is room, or counts it as missed when there is none in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future counts the message as missed, unless it is in.
    pub async fn settle(mut self) {
        let mailbox = self.mailbox.clone();
        let limit = self.limit;
        let entered = async {
            loop {
                let mut room = pin!(mailbox.shared.room.notified());
                // Registers before it looks, so that room made in between is not overlooked.
                room.as_mut().enable();
                if self.enter() {
                    return;
                }
                room.await;
            }
        };
        // When it is too late, dropping `self` counts the message.
        let _in_time = tokio::time::timeout(limit, entered).await;
    }

    /// Whether waiting is over, because the message is in or the mailbox is closed.
    fn enter(&mut self) -> bool {
        let shared = &self.mailbox.shared;
        let mut state = shared.lock();
        if !state.closed {
            if state.ready.len() >= shared.options.capacity() {
                return false;
            }
            if let Some(message) = self.message.take() {
                state.push(message);
                release(state);
            }
        }
        true
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.message.is_some() {
            let mut state = self.mailbox.shared.lock();
            if !state.closed {
                state.missed.messages += 1;
                release(state);
                self.mailbox.count_dropped(1);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unlocks, and then wakes the reader: a waker may do anything.
fn release(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        catch(|| reader.wake());
    }
}

impl State {
    fn push(&mut self, message: Message) {
        let missed = std::mem::take(&mut self.missed);
        self.push_after(missed, message);
    }

    /// Makes a message ready, after what was missed before it.
    fn push_after(&mut self, missed: Missed, message: Message) {
        if missed.is_any() {
            let number = self.first + self.ready.len() as u64;
            self.gaps.push_back((number, missed));
        }
        self.ready.push_back(message);
    }

    /// Admits waiting messages while there is room, and returns those whose time is over. They are
    /// counted as lost where they are missing.
    fn admit_queued(&mut self, capacity: usize, now: Instant) -> Vec<Message> {
        let mut expired = Vec::new();
        while let Some((deadline, _)) = self.queued.front() {
            let late = *deadline <= now;
            if !late && self.ready.len() >= capacity {
                break;
            }
            let Some((_, queued)) = self.queued.pop_front() else {
                break;
            };
            if late {
                let place = match self.queued.front_mut() {
                    Some((_, next)) => &mut next.missed,
                    None => &mut self.missed,
                };
                *place += queued.missed;
                place.messages += 1;
                expired.push(queued.message);
            } else {
                self.push_after(queued.missed, queued.message);
            }
        }
        expired
    }

    /// Makes room at the front, and keeps the account of what is missing there.
    fn take_oldest(&mut self) -> Option<Message> {
        let mut missed = self.take_gap();
        let oldest = self.take_first()?;
        missed.messages += 1;
        if self.ready.is_empty() {
            self.missed += missed;
        } else {
            missed += self.take_gap();
            self.gaps.push_front((self.first, missed));
        }
        Some(oldest)
    }

    /// Takes the report of what was missed before the first message, or the message.
    fn take_next(&mut self) -> Option<Received> {
        let missed = if self.ready.is_empty() {
            std::mem::take(&mut self.missed)
        } else {
            self.take_gap()
        };
        if let Some(lagged) = missed.report() {
            return Some(Received::Lagged(lagged));
        }
        self.take_first().map(Received::Message)
    }

    fn take_first(&mut self) -> Option<Message> {
        let first = self.ready.pop_front()?;
        self.first += 1;
        Some(first)
    }

    /// What was missed right before the first message.
    fn take_gap(&mut self) -> Missed {
        match self.gaps.front() {
            Some((number, missed)) if *number == self.first => {
                let missed = *missed;
                self.gaps.pop_front();
                missed
            }
            _ => Missed::default(),
        }
    }
}

impl Missed {
    fn is_any(self) -> bool {
        self.uncounted || self.messages > 0
    }

    fn report(self) -> Option<Lagged> {
        if self.uncounted {
            Some(Lagged::unknown())
        } else if self.messages > 0 {
            Some(Lagged::by(self.messages))
        } else {
            None
        }
    }
}

impl AddAssign for Missed {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.uncounted |= other.uncounted;
    }
}

#[cfg(test)]
mod tests;
