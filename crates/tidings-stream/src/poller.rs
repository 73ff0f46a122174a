//! Polling for all waiting consumers of a process with one question.
//!
//! A consumer that waits would find out by a claim whether there is something for it, and a
//! thousand idle ones would ask a thousand times per interval. Here they take a seat; one task asks
//! the engine for all whose time has come, and sends those to claim that will find something.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::engine::{ConsumerKey, Engine, GroupKey, WeakEngine};

/// Most groups of one question, so that no single answer takes long.
const MAX_QUESTION: usize = 1000;

/// How often the consumers of this process say that they are alive, and for how long that holds:
/// two may get lost before one is taken for dead.
const CHECK_IN_INTERVAL: Duration = Duration::from_secs(15);
const CHECK_IN_TTL: Duration = Duration::from_secs(45);

/// The consumers of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Poller {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seats: Mutex<Seats>,
    /// Told when somebody's next poll may be earlier than all before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    next_number: u64,
    taken: HashMap<u64, Entry>,
    /// Those that wait, by when to ask for them.
    waiting: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Entry {
    consumer: ConsumerKey,
    interval: Duration,
    /// When to ask for it; `None` while it does not wait.
    next: Option<Instant>,
    ready: Arc<Notify>,
}

/// A consumer's place. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Seat {
    poller: Poller,
    number: u64,
    ready: Arc<Notify>,
}

impl Poller {
    /// Takes a place for a consumer that wants to be asked for at an interval while it waits.
    pub(crate) fn seat(&self, consumer: ConsumerKey, interval: Duration) -> Seat {
        let ready = Arc::new(Notify::new());
        let mut seats = self.lock();
        let number = seats.next_number;
        seats.next_number += 1;
        seats.taken.insert(
            number,
            Entry {
                consumer,
                interval,
                next: None,
                ready: Arc::clone(&ready),
            },
        );
        drop(seats);
        Seat {
            poller: self.clone(),
            number,
            ready,
        }
    }

    /// Asks and checks in until closing. It does not keep the engine.
    pub(crate) async fn run(self, engine: WeakEngine, closing: CancellationToken) {
        let polling = self.poll(&engine);
        let checking_in = self.check_in(&engine);
        tokio::select! {
            () = closing.cancelled() => {}
            () = polling => {}
            () = checking_in => {}
        }
    }

    /// Ends when the engine has gone or is closed.
    async fn poll(&self, engine: &WeakEngine) {
        loop {
            let (due, next) = self.due();
            if due.is_empty() {
                tokio::select! {
                    () = self.shared.changed.notified() => {}
                    () = until(next) => {}
                }
                continue;
            }
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let groups: Arc<[GroupKey]> = due.iter().map(|(_, group)| group.clone()).collect();
            match engine.ready(groups).await {
                Ok(ready) => {
                    let numbers = due.iter().map(|(number, _)| *number);
                    self.send(
                        numbers
                            .zip(ready)
                            .filter_map(|(n, ready)| ready.then_some(n)),
                    );
                }
                Err(Error::Closed) => return,
                Err(error) => {
                    // Whoever claims reports it as well; those who wait are asked for again.
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, groups = due.len(), "polling failed");
                }
            }
        }
    }

    /// Says for all consumers that they are alive. Ends when the engine has gone or is closed.
    async fn check_in(&self, engine: &WeakEngine) {
        loop {
            tokio::time::sleep(CHECK_IN_INTERVAL).await;
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let consumers: Arc<[ConsumerKey]> = {
                let seats = self.lock();
                seats.taken.values().map(|e| e.consumer.clone()).collect()
            };
            if consumers.is_empty() {
                continue;
            }
            match engine.check_in(consumers, CHECK_IN_TTL).await {
                Ok(()) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "consumers could not say that they are alive");
                }
            }
        }
    }

    /// Those whose time has come, or comes within a quarter of their interval, with their next one
    /// set; when there are none, the time of the first.
    fn due(&self) -> (Vec<(u64, GroupKey)>, Option<Instant>) {
        let now = Instant::now();
        let mut seats = self.lock();
        let first = seats.waiting.first().map(|(next, _)| *next);
        if first.is_none_or(|first| first > now) {
            return (Vec::new(), first);
        }
        let due: Vec<_> = seats
            .waiting
            .iter()
            .map_while(|(next, number)| {
                let entry = seats.taken.get(number)?;
                (*next <= now + entry.interval / 4).then(|| (*number, entry.consumer.group.clone()))
            })
            .take(MAX_QUESTION)
            .collect();
        for (number, _) in &due {
            seats.wait(*number);
        }
        (due, first)
    }

    fn send(&self, numbers: impl Iterator<Item = u64>) {
        let seats = self.lock();
        for number in numbers {
            if let Some(entry) = seats.taken.get(&number) {
                entry.ready.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // The map is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.shared
            .seats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until a poll has found something for the consumer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the waiting.
    pub(crate) async fn polled(&self) {
        let _waiting = Waiting(self);
        let is_first = self.poller.lock().wait(self.number);
        if is_first {
            self.poller.shared.changed.notify_one();
        }
        self.ready.notified().await;
    }
}

impl Seats {
    /// Sets when to ask for a consumer next, and answers whether that is before all others.
    fn wait(&mut self, number: u64) -> bool {
        self.stop_waiting(number);
        let Some(entry) = self.taken.get_mut(&number) else {
            return false;
        };
        let next = Instant::now() + jittered(entry.interval);
        entry.next = Some(next);
        self.waiting.insert((next, number));
        self.waiting.first() == Some(&(next, number))
    }

    fn stop_waiting(&mut self, number: u64) {
        let next = self
            .taken
            .get_mut(&number)
            .and_then(|entry| entry.next.take());
        if let Some(next) = next {
            self.waiting.remove(&(next, number));
        }
    }
}

/// Ends the waiting of a seat.
struct Waiting<'a>(&'a Seat);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.poller.lock().stop_waiting(self.0.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.poller.lock();
        seats.stop_waiting(self.number);
        seats.taken.remove(&self.number);
    }
}

/// How long what a consumer says at its beginning holds.
pub(crate) const FIRST_CHECK_IN_TTL: Duration = CHECK_IN_TTL;

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Spreads the polls of processes that were started together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.875 + fastrand::f64() / 4.0)
}
