//! Writing outcomes: in batches, and again until the store takes them.

use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::lane::Lane;
use super::{Shared, ToDisable};
use crate::store::{AfterAttempt, Outcome};
use crate::{DeliveryState, EndpointId, telemetry};

/// Most outcomes that one transaction writes.
const BATCH: usize = 512;

/// With so many outcomes unwritten, no more deliveries are taken from the store.
const MAX_UNWRITTEN: usize = 10_000;

/// The pauses between attempts to write.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Outcomes on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    queue: Mutex<VecDeque<Entry>>,
    /// Outcomes in the queue, and those that are being written.
    unwritten: std::sync::atomic::AtomicUsize,
    added: Notify,
    written: Notify,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) outcome: Outcome,
    pub(super) lane: Arc<Lane>,
    pub(super) message_id: String,
    /// Whether the endpoint said that it wants no more events.
    pub(super) is_gone: bool,
    /// The revision of the endpoint under which it was handed over.
    pub(super) revision: u64,
}

impl Entry {
    fn retry_due(&self) -> Option<Timestamp> {
        match self.outcome.next {
            AfterAttempt::Retry(due) => Some(due),
            AfterAttempt::Finish { .. } => None,
        }
    }

    fn to_disable(&self, because: &'static str) -> ToDisable {
        ToDisable {
            endpoint: self.lane.endpoint,
            revision: self.revision,
            because,
        }
    }
}

impl Recorder {
    pub(super) fn push(&self, entry: Entry) {
        use std::sync::atomic::Ordering::AcqRel;
        self.unwritten.fetch_add(1, AcqRel);
        telemetry::outcomes_unwritten(1.0);
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(entry);
        self.added.notify_one();
    }

    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Whether so few outcomes are unwritten that more may be made.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten() < MAX_UNWRITTEN
    }

    /// Waits until there is room.
    pub(super) async fn room(&self) {
        self.wait_for(MAX_UNWRITTEN - 1).await;
    }

    /// Waits until every outcome is written.
    pub(super) async fn is_drained(&self) {
        self.wait_for(0).await;
    }

    async fn wait_for(&self, most: usize) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            if self.unwritten() <= most {
                return;
            }
            written.await;
        }
    }

    async fn take(&self) -> Vec<Entry> {
        loop {
            let mut added = std::pin::pin!(self.added.notified());
            added.as_mut().enable();
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if !queue.is_empty() {
                    let count = queue.len().min(BATCH);
                    return queue.drain(..count).collect();
                }
            }
            added.await;
        }
    }

    fn finish(&self, count: usize) {
        self.unwritten
            .fetch_sub(count, std::sync::atomic::Ordering::AcqRel);
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        telemetry::outcomes_unwritten(-(count as f64));
        self.written.notify_waiters();
    }
}

/// Writes outcomes for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let mut entries = shared.recorder.take().await;
        let changed = doubt_old_replies(&shared, &mut entries).await;
        let news = write(&shared, &entries).await;
        let mut by_lane: FxHashMap<EndpointId, Vec<&Entry>> = FxHashMap::default();
        for entry in &entries {
            by_lane.entry(entry.lane.endpoint).or_default().push(entry);
        }
        let mut ended = Vec::with_capacity(by_lane.len());
        for of_lane in by_lane.into_values() {
            let due = of_lane.iter().filter_map(|entry| entry.retry_due()).min();
            let ids = of_lane.iter().map(|entry| &*entry.message_id);
            let lane = &of_lane[0].lane;
            ended.push((lane.endpoint, lane.written(ids, due)));
        }
        shared.attempts_ended(ended);
        count(&entries);
        shared.recorder.finish(entries.len());
        for endpoint in changed {
            shared.unblock(endpoint);
        }
        for entry in entries.iter().filter(|entry| entry.is_gone) {
            shared.disable(entry.to_disable("the endpoint replied 410 Gone"));
        }
        let Some(limit) = shared.disable_after else {
            continue;
        };
        let now = shared.clock.now();
        for (endpoint, failing_since) in news {
            let has_failed_for =
                failing_since.and_then(|since| Duration::try_from(now.duration_since(since)).ok());
            let mut newest = entries.iter().rev();
            if has_failed_for.is_some_and(|time| time >= limit)
                && let Some(entry) = newest.find(|entry| entry.lane.endpoint == endpoint)
            {
                shared.disable(entry.to_disable("no attempt succeeded for too long"));
            }
        }
    }
}

/// A reply of 410 says that there is nothing at a URL any more. If the endpoint was changed since the attempt began, it says
/// nothing about the present one: the delivery is tried again, at once. Returns the endpoints of which that is so.
async fn doubt_old_replies(shared: &Shared, entries: &mut [Entry]) -> HashSet<EndpointId> {
    let mut revisions: HashMap<EndpointId, Option<u64>> = HashMap::new();
    let mut changed = HashSet::new();
    for entry in entries.iter_mut().filter(|entry| entry.is_gone) {
        let endpoint = entry.lane.endpoint;
        let revision = match revisions.entry(endpoint) {
            hash_map::Entry::Occupied(found) => *found.get(),
            hash_map::Entry::Vacant(missing) => *missing.insert(revision(shared, endpoint).await),
        };
        if revision.is_some_and(|present| present != entry.revision) {
            entry.is_gone = false;
            entry.outcome.next = AfterAttempt::Retry(shared.clock.now());
            changed.insert(endpoint);
        }
    }
    changed
}

/// The present revision of an endpoint that is enabled. If it cannot be read, what follows from the reply looks again.
async fn revision(shared: &Shared, endpoint: EndpointId) -> Option<u64> {
    match shared.store.endpoint(endpoint).await {
        Ok(found) => Some(found.filter(|it| it.disabled.is_none())?.revision),
        Err(error) => {
            shared.store_failed(&error, "reading an endpoint");
            None
        }
    }
}

/// Writes until it succeeds: an outcome that was thrown away would be another request.
async fn write(shared: &Shared, entries: &[Entry]) -> Vec<(EndpointId, Option<Timestamp>)> {
    let mut pause = FIRST_PAUSE;
    loop {
        let outcomes = entries.iter().map(|entry| entry.outcome.clone()).collect();
        let (now, at) = (shared.clock.now(), shared.clock.wall.now());
        match shared.store.record(outcomes, now, at).await {
            Ok(news) => return news,
            Err(error) => {
                shared.store_failed(&error, "writing outcomes of attempts");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn count(entries: &[Entry]) {
    for state in [DeliveryState::Delivered, DeliveryState::Failed] {
        let ended = |entry: &&Entry| matches!(&entry.outcome.next, AfterAttempt::Finish { state: it, .. } if *it == state);
        telemetry::deliveries_ended(state, entries.iter().filter(ended).count());
    }
}
