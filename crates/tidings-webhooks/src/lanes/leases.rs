//! Which lanes this instance serves: those whose leases it takes, keeps and loses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::lane::Lane;
use super::{Lanes, Shared, feeder};
use crate::clock::later;
use crate::store::{LeaseRequest, LeasedLane, Released};
use crate::{EndpointId, StoreError};

/// How long a lane that is not served stays in the dispatcher, with what was learned about it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// By how much the clocks of the instances may differ, for the end of a block.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// Most lanes that are leased at once.
const LEASED_AT_ONCE: usize = 256;

/// The longest wait between two looks while the store fails.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Leases lanes that are due, and starts their feeders.
pub(super) async fn take(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    loop {
        let looked = shared.look.notified();
        let next_due = shared.lock().next_due;
        let poll = shared.poll_interval.mul_f64(0.75 + fastrand::f64() / 2.0);
        let mut wait = next_due.map_or(poll, |due| shared.clock.until(due).min(poll));
        if failures > 0 {
            wait = (shared.poll_interval * failures).min(STORE_PAUSE);
        }
        tokio::select! {
            () = looked, if failures == 0 => {}
            () = sleep(wait) => {}
            () = shared.stopping.cancelled() => return,
        }
        match take_once(&shared).await {
            Ok(()) => {
                failures = 0;
                shared.store_worked();
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                shared.store_failed(&error, "taking endpoints");
            }
        }
    }
}

async fn take_once(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let room = {
        let mut lanes = shared.lock();
        lanes.next_due = None;
        lanes.lacks_room = false;
        shared.max_lanes.saturating_sub(lanes.served.len())
    };
    let now = shared.clock.now();
    let lease = LeaseRequest {
        instance: shared.instance.clone(),
        now,
        until: later(now, shared.lease),
        limit: room.min(LEASED_AT_ONCE),
    };
    let leased = shared.store.lease_lanes(lease).await?;
    let is_full = leased.lanes.len() >= room;
    for lane in leased.lanes {
        shared.learn(&lane);
        shared.serve(lane.endpoint, lane.next_open_for);
    }
    let more_is_due = leased.next_due.is_some_and(|due| due <= now);
    if is_full && more_is_due && !shared.make_room().await? {
        // Looking again at once would find the same. A lane that rests or is given back is a reason to look.
        return Ok(());
    }
    // Nothing is woken: the loop that has just looked waits until this time.
    shared.note_due(leased.next_due);
    Ok(())
}

/// Renews all leases of the instance, and notices which were lost and which endpoints have changed.
pub(super) async fn renew(shared: Arc<Shared>) {
    let interval = shared.lease / 3;
    let mut leased_until = later(shared.clock.now(), shared.lease);
    loop {
        sleep(interval).await;
        let began = Instant::now();
        let renewed = async {
            let now = shared.store.advance_clock(shared.clock.now()).await?;
            shared.clock.catch_up(now);
            // By the clock of all: with this machine's own, the lease could be over for others already.
            let until = later(shared.clock.now(), shared.lease);
            let held = shared.store.renew_lanes(&shared.instance, until).await?;
            Ok::<_, StoreError>((held, until))
        };
        let left = shared.clock.until(leased_until);
        let limit = if left.is_zero() { shared.lease } else { left };
        match timeout(limit, renewed).await {
            Ok(Ok((held, until))) => {
                leased_until = until;
                let held: HashMap<_, _> = held.into_iter().collect();
                for lane in shared.served_since_before(began) {
                    match held.get(&lane.endpoint) {
                        Some(revision) if lane.is_using(*revision) => {}
                        Some(_) => shared.unblock(lane.endpoint),
                        None => shared.lose(&lane),
                    }
                }
                // A lane that was lost and leased again while its feeder was ending.
                for endpoint in held.into_keys() {
                    if !shared.was_given_back(endpoint, began) {
                        shared.serve(endpoint, None);
                    }
                }
            }
            outcome => {
                if let Ok(Err(error)) = outcome {
                    shared.store_failed(&error, "renewing the lease of endpoints");
                }
                if shared.clock.now() >= leased_until {
                    // Another instance may have them now.
                    for lane in shared.served_since_before(began) {
                        shared.lose(&lane);
                    }
                }
            }
        }
        shared.forget_idle_lanes();
    }
}

impl Shared {
    /// Has the dispatcher know what other instances have learned of a lane that it remembers. It may have been given
    /// back blocked, or with a circuit that was not closed, and be unblocked since.
    fn learn(&self, leased: &LeasedLane) {
        let key = leased.endpoint.to_string();
        let Some(status) = self.dispatcher.status(&key) else {
            return;
        };
        let is_blocked = status
            .blocked_until
            .is_some_and(|until| until.saturating_duration_since(Instant::now()) > CLOCKS_DIFFER);
        let has_closed = status.next_open_for.is_some() && leased.next_open_for.is_none();
        if is_blocked || has_closed {
            let earlier = self.lock().known.get(&leased.endpoint).cloned();
            // One whose lease was lost was not given back.
            let is_lost = |lane: &Arc<Lane>| lane.is_lost.load(Ordering::Acquire);
            if !earlier.as_ref().is_some_and(is_lost) {
                self.dispatcher.unblock(&key);
                if let Some(earlier) = earlier {
                    earlier.unblock();
                }
            }
        }
        if let Some(next_open_for) = leased.next_open_for
            && (is_blocked || status.next_open_for != Some(next_open_for))
        {
            self.dispatcher.resume_circuit(&key, next_open_for);
        }
    }

    /// Serves a lane whose lease was taken.
    fn serve(self: &Arc<Self>, endpoint: EndpointId, left_open_for: Option<Duration>) {
        let stop = self.stopping.child_token();
        let mut lanes = self.lock();
        if self.stopping.is_cancelled() || lanes.served.contains_key(&endpoint) {
            return;
        }
        let lane = Arc::new(match lanes.known.get(&endpoint) {
            Some(earlier) => earlier.again(left_open_for, stop),
            None => Lane::new(endpoint, left_open_for, stop),
        });
        lanes.known.insert(endpoint, Arc::clone(&lane));
        lanes.served.insert(endpoint, Arc::clone(&lane));
        lanes.remembered.remove(&endpoint);
        drop(lanes);
        self.start_feeder(lane);
    }

    pub(super) fn start_feeder(self: &Arc<Self>, lane: Arc<Lane>) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            // Not made by who starts this, and has locked the lanes.
            let span = lane.span();
            feeder::feed(shared, lane).instrument(span).await;
        });
    }

    /// Feeds what lanes were handed while they rested.
    pub(super) fn feed_at_once(self: &Arc<Self>, lanes: Vec<Arc<Lane>>) {
        if !lanes.is_empty() {
            self.spawn(feeder::feed_at_once(Arc::clone(self), lanes));
        }
    }

    fn spawn(&self, feeding: impl Future<Output = ()> + Send + 'static) {
        let aborting = self.aborting.clone();
        self.feeders.spawn(async move {
            tokio::select! {
                () = feeding => {}
                () = aborting.cancelled() => {}
            }
        });
    }

    /// Stops serving a lane whose lease has ended: its feeder ends, if it has one.
    fn lose(&self, lane: &Lane) {
        lane.lose();
        let mut lanes = self.lock();
        if lanes.resting.contains_key(&lane.endpoint) {
            lanes.end(lane);
            drop(lanes);
            self.dispatcher.remove(&lane.key);
        }
    }

    /// Notes that a lane has no feeder any more. Returns whether it is to be given back: not if its lease was
    /// lost, and not while the instance stops, which gives all of them back at its end.
    pub(super) fn stop_serving(&self, lane: &Lane) -> bool {
        let mut lanes = self.lock();
        if self.stopping.is_cancelled() {
            return false;
        }
        lanes.end(lane);
        let is_lost = lane.is_lost.load(Ordering::Acquire);
        if is_lost {
            drop(lanes);
            self.dispatcher.remove(&lane.key);
        } else {
            lanes.released.insert(lane.endpoint);
        }
        !is_lost
    }

    /// Gives lanes back that are not served any more.
    pub(super) async fn give_back(&self, lanes: Vec<Released>) -> Result<(), StoreError> {
        let endpoints: Vec<_> = lanes.iter().map(|lane| lane.endpoint).collect();
        let next_due = self.store.release_lanes(&self.instance, lanes).await;
        let mut lanes = self.lock();
        for endpoint in endpoints {
            lanes.released.remove(&endpoint);
            lanes.remembered.insert(endpoint, Instant::now());
        }
        if lanes.lacks_room {
            self.look.notify_one();
        }
        drop(lanes);
        self.look_at(next_due?);
        Ok(())
    }

    /// Whether what a renewal that began then says of a lane may be older than its end.
    fn was_given_back(&self, endpoint: EndpointId, began: Instant) -> bool {
        let lanes = self.lock();
        let ended = lanes.remembered.get(&endpoint);
        lanes.released.contains(&endpoint) || ended.is_some_and(|ended| *ended >= began)
    }

    /// Forgets lanes that are not served and whose attempts have all ended, and after a while what
    /// the dispatcher has learned about them.
    fn forget_idle_lanes(&self) {
        let mut lanes = self.lock();
        lanes.local.forget_old();
        let Lanes {
            known,
            served,
            remembered,
            ..
        } = &mut *lanes;
        known.retain(|endpoint, lane| served.contains_key(endpoint) || !lane.is_empty());
        let is_old = |since: &Instant| since.elapsed() >= REMEMBERED;
        let old: Vec<_> = remembered
            .iter()
            .filter(|(endpoint, since)| is_old(since) && !known.contains_key(endpoint))
            .map(|(endpoint, _)| *endpoint)
            .collect();
        for endpoint in &old {
            remembered.remove(endpoint);
        }
        drop(lanes);
        for endpoint in old {
            self.dispatcher.remove(endpoint.to_string());
        }
    }

    fn served_since_before(&self, time: Instant) -> Vec<Arc<Lane>> {
        let lanes = self.lock();
        let served = lanes.served.values();
        served
            .filter(|lane| lane.leased_at < time)
            .cloned()
            .collect()
    }

    /// Has the lease loop look at a time.
    pub(super) fn look_at(&self, due: Option<Timestamp>) {
        if self.note_due(due) {
            self.look.notify_one();
        }
    }

    /// Notes when a lane without a lease is due. Returns whether that is earlier than was known.
    fn note_due(&self, due: Option<Timestamp>) -> bool {
        let Some(due) = due else { return false };
        let mut lanes = self.lock();
        let is_earlier = lanes.next_due.is_none_or(|next| due < next);
        if is_earlier {
            lanes.next_due = Some(due);
        }
        is_earlier
    }
}

impl Lanes {
    /// A lane is not served any more. It stays known while attempts are under way.
    pub(super) fn end(&mut self, lane: &Lane) {
        lane.forget();
        self.served.remove(&lane.endpoint);
        self.resting.remove(&lane.endpoint);
        self.remembered.insert(lane.endpoint, Instant::now());
        if lane.is_empty() {
            self.known.remove(&lane.endpoint);
        }
    }
}
