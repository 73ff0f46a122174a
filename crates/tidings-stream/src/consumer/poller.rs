//! Polling for all waiting consumers of a process with one call.
//!
//! If each waiting consumer polled by a claim, a thousand idle ones would make a thousand calls per
//! interval. Instead they register here. One task asks the engine for all whose time has come, and
//! wakes those that have something to claim.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outage::Outages;
use crate::Error;
use crate::engine::{ConsumerKey, Engine, GroupKey};

/// Most groups of one poll, so that no single one takes long.
const MAX_POLL: usize = 1000;

/// How often the consumers of this process check in, and how long a check-in lasts: two may be lost
/// before a consumer counts as dead.
const CHECK_IN_INTERVAL: Duration = Duration::from_secs(15);
const CHECK_IN_TTL: Duration = Duration::from_secs(45);

/// The consumers of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Poller {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    /// Notified when the next poll may have become earlier.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    next_number: u64,
    entries: HashMap<u64, Entry>,
    /// The consumers that wait, by the time of their next poll.
    waiting: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Entry {
    consumer: ConsumerKey,
    interval: Duration,
    /// The time of the next poll; `None` while it does not wait.
    next: Option<Instant>,
    ready: Arc<Notify>,
}

/// A registered consumer. Dropping it removes the consumer.
#[derive(Debug)]
pub(crate) struct Registration {
    poller: Poller,
    number: u64,
    ready: Arc<Notify>,
}

impl Poller {
    /// Registers a consumer that is polled for at an interval while it waits.
    pub(crate) fn register(&self, consumer: ConsumerKey, interval: Duration) -> Registration {
        let ready = Arc::new(Notify::new());
        let mut registry = self.lock();
        let number = registry.next_number;
        registry.next_number += 1;
        registry.entries.insert(
            number,
            Entry {
                consumer,
                interval,
                next: None,
                ready: Arc::clone(&ready),
            },
        );
        drop(registry);
        Registration {
            poller: self.clone(),
            number,
            ready,
        }
    }

    /// Polls and checks in until closing. It does not keep the engine alive.
    pub(crate) async fn run(
        self,
        engine: Weak<dyn Engine>,
        outages: Outages,
        closing: CancellationToken,
    ) {
        let polling = self.poll(&engine, &outages);
        let checking_in = self.check_in(&engine, &outages);
        tokio::select! {
            () = closing.cancelled() => {}
            () = polling => {}
            () = checking_in => {}
        }
    }

    /// Ends when the engine has gone or is closed.
    async fn poll(&self, engine: &Weak<dyn Engine>, outages: &Outages) {
        let mut polling = outages.part("polling");
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
                    polling.worked();
                    let numbers = due.iter().map(|(number, _)| *number);
                    self.notify(
                        numbers
                            .zip(ready)
                            .filter_map(|(n, ready)| ready.then_some(n)),
                    );
                }
                Err(Error::Closed) => return,
                // Waiting consumers are polled for again.
                Err(error) => polling.failed(&error),
            }
        }
    }

    /// Checks all consumers in. Ends when the engine has gone or is closed.
    async fn check_in(&self, engine: &Weak<dyn Engine>, outages: &Outages) {
        let mut checking_in = outages.part("checking in");
        loop {
            tokio::time::sleep(CHECK_IN_INTERVAL).await;
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let consumers: Arc<[ConsumerKey]> = {
                let registry = self.lock();
                registry
                    .entries
                    .values()
                    .map(|e| e.consumer.clone())
                    .collect()
            };
            if consumers.is_empty() {
                continue;
            }
            match engine.check_in(consumers, CHECK_IN_TTL).await {
                Ok(()) => checking_in.worked(),
                Err(Error::Closed) => return,
                Err(error) => checking_in.failed(&error),
            }
        }
    }

    /// The consumers whose time has come, or comes within a quarter of their interval, with their
    /// next time set. If there are none, the time of the first poll.
    fn due(&self) -> (Vec<(u64, GroupKey)>, Option<Instant>) {
        let now = Instant::now();
        let mut registry = self.lock();
        let first = registry.waiting.first().map(|(next, _)| *next);
        if first.is_none_or(|first| first > now) {
            return (Vec::new(), first);
        }
        let due: Vec<_> = registry
            .waiting
            .iter()
            .map_while(|(next, number)| {
                let entry = registry.entries.get(number)?;
                (*next <= now + entry.interval / 4).then(|| (*number, entry.consumer.group.clone()))
            })
            .take(MAX_POLL)
            .collect();
        for (number, _) in &due {
            registry.wait(*number);
        }
        (due, first)
    }

    fn notify(&self, numbers: impl Iterator<Item = u64>) {
        let registry = self.lock();
        for number in numbers {
            if let Some(entry) = registry.entries.get(&number) {
                entry.ready.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every statement leaves the map consistent, so a poisoned lock can be used.
        self.shared
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
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

impl Registry {
    /// Sets the next poll of a consumer. Returns whether that is before all others.
    fn wait(&mut self, number: u64) -> bool {
        self.stop_waiting(number);
        let Some(entry) = self.entries.get_mut(&number) else {
            return false;
        };
        let next = Instant::now() + jittered(entry.interval);
        entry.next = Some(next);
        self.waiting.insert((next, number));
        self.waiting.first() == Some(&(next, number))
    }

    fn stop_waiting(&mut self, number: u64) {
        let next = self
            .entries
            .get_mut(&number)
            .and_then(|entry| entry.next.take());
        if let Some(next) = next {
            self.waiting.remove(&(next, number));
        }
    }
}

/// Ends the waiting of a registration.
struct Waiting<'a>(&'a Registration);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.poller.lock().stop_waiting(self.0.number);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = self.poller.lock();
        registry.stop_waiting(self.number);
        registry.entries.remove(&self.number);
    }
}

/// How long the first check-in of a consumer lasts.
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
