//! Polling for all waiting consumers of a process with one call.
//!
//! If each waiting consumer polled by a claim, a thousand idle ones would make a thousand calls per
//! interval. Instead each asks here once per interval, and can wait for the last quarter of it. One task
//! asks the engine for all that have asked by then.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::outage::Outages;
use crate::Error;
use crate::engine::{ConsumerKey, Engine, GroupKey};

/// Most groups of one poll, so that no single one takes long.
const MAX_POLL: usize = 1000;

/// How often the consumers of this process check in, and how long a check-in lasts: two may be lost
/// before a consumer counts as dead.
const CHECK_IN_INTERVAL: Duration = Duration::from_secs(15);
pub(crate) const CHECK_IN_TTL: Duration = Duration::from_secs(45);

/// The consumers of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Poller {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    registry: Mutex<Registry>,
    /// Notified when the next poll has become earlier.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    next_number: u64,
    entries: HashMap<u64, Entry>,
    /// When the first of those that ask can wait no longer; `None` if none asks.
    next_poll: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    consumer: ConsumerKey,
    /// Gets whether there is something to claim, if the consumer asks for that.
    ask: Option<oneshot::Sender<bool>>,
}

/// A registered consumer. Dropping it removes the consumer.
pub(crate) struct Registration {
    poller: Poller,
    number: u64,
    interval: Duration,
    /// Starts the task that polls and checks in again if its runtime has ended.
    keep_house: Box<dyn Fn() + Send + Sync>,
}

impl Poller {
    /// Registers a consumer that is polled for at an interval while it waits.
    pub(crate) fn register(
        &self,
        consumer: ConsumerKey,
        interval: Duration,
        keep_house: impl Fn() + Send + Sync + 'static,
    ) -> Registration {
        let mut registry = self.shared.registry.lock();
        let number = registry.next_number;
        registry.next_number += 1;
        let ask = None;
        registry.entries.insert(number, Entry { consumer, ask });
        drop(registry);
        Registration {
            poller: self.clone(),
            number,
            interval,
            keep_house: Box::new(keep_house),
        }
    }

    /// Polls and checks in until closing. It does not keep the engine alive.
    pub(crate) async fn run(
        self,
        engine: Weak<dyn Engine>,
        outages: Outages,
        closing: CancellationToken,
    ) {
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.poll(&engine, &outages) => {}
            () = self.check_in(&engine, &outages) => {}
        }
    }

    /// Ends when the engine has gone or is closed.
    async fn poll(&self, engine: &Weak<dyn Engine>, outages: &Outages) {
        let mut polling = outages.part("polling");
        loop {
            let next = self.shared.registry.lock().next_poll;
            if next.is_none_or(|next| next > Instant::now()) {
                tokio::select! {
                    () = self.shared.changed.notified() => {}
                    () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                }
                continue;
            }
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let (groups, asks) = self.take_asks();
            match engine.ready(groups.into()).await {
                Ok(ready) => {
                    polling.worked();
                    for (ask, ready) in asks.into_iter().zip(ready) {
                        // An error means that the consumer waits no more.
                        ask.send(ready).ok();
                    }
                }
                Err(Error::Closed) => return,
                // Those that still wait ask again.
                Err(error) => polling.failed(&error),
            }
        }
    }

    /// Checks all consumers in. Ends when the engine has gone or is closed.
    async fn check_in(&self, engine: &Weak<dyn Engine>, outages: &Outages) {
        let mut checking_in = outages.part("checking in");
        loop {
            sleep(CHECK_IN_INTERVAL).await;
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let consumers: Arc<[ConsumerKey]> = {
                let registry = self.shared.registry.lock();
                let entries = registry.entries.values();
                entries.map(|entry| entry.consumer.clone()).collect()
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

    /// The groups of those that ask, and where each waits.
    fn take_asks(&self) -> (Vec<GroupKey>, Vec<oneshot::Sender<bool>>) {
        let mut registry = self.shared.registry.lock();
        let entries = registry.entries.values_mut();
        let asks = entries.filter_map(|entry| {
            let ask = entry.ask.take().filter(|ask| !ask.is_closed())?;
            Some((entry.consumer.group.clone(), ask))
        });
        let asks: (Vec<_>, Vec<_>) = asks.take(MAX_POLL).unzip();
        // There may be more.
        registry.next_poll = (asks.0.len() == MAX_POLL).then(Instant::now);
        asks
    }
}

impl Registration {
    /// Waits until a poll has found something for the consumer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the waiting.
    pub(crate) async fn polled(&self) {
        loop {
            // Spread, because processes may have been started together.
            let spread = 0.625 + fastrand::f64() / 4.0;
            sleep(self.interval.mul_f64(spread)).await;
            let mut asking = pin!(self.ask());
            let ready = loop {
                tokio::select! {
                    ready = &mut asking => break ready,
                    () = sleep(self.interval) => self.keep_house(),
                }
            };
            // An error means that the poll failed.
            if let Ok(true) = ready {
                return;
            }
        }
    }

    /// Lets this runtime poll and check in if the one that did so has ended.
    pub(crate) fn keep_house(&self) {
        (self.keep_house)();
    }

    /// Asks whether there is something to claim.
    fn ask(&self) -> oneshot::Receiver<bool> {
        let (ask, reply) = oneshot::channel();
        let latest = Instant::now() + self.interval / 4;
        let mut registry = self.poller.shared.registry.lock();
        if let Some(entry) = registry.entries.get_mut(&self.number) {
            entry.ask = Some(ask);
        }
        if registry.next_poll.is_none_or(|next| latest < next) {
            registry.next_poll = Some(latest);
            self.poller.shared.changed.notify_one();
        }
        reply
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.poller
            .shared
            .registry
            .lock()
            .entries
            .remove(&self.number);
    }
}
