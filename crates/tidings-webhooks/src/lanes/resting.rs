//! Lanes without work, which this instance keeps for a while because more often follows soon.
//!
//! They have no task. One look for all of them finds what another instance has added or changed, and what
//! has become due; those that have rested long enough are given back together.
//!
//! What they are handed goes straight into the dispatcher, and they rest on. While its request is under way, it is pending in
//! the store: if the look finds it, the lane gets a feeder.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::feeder::Course;
use super::lane::Lane;
use super::{Lanes, Shared};
use crate::clock::later;
use crate::store::{NextDue, Released};
use crate::{EndpointId, StoreError};

/// How long a lane without work stays here, and how often to look for what another instance has added. With
/// the fan-out elsewhere that is all its work, and the lane is soon free for the instance that has the fan-out.
const ELSEWHERE: Pace = Pace {
    rest: Duration::from_secs(1),
    look: Duration::from_millis(250),
};

/// The same where the fan-out of this instance says when there is more.
const HERE: Pace = Pace {
    rest: Duration::from_secs(5),
    look: Duration::from_secs(1),
};

struct Pace {
    rest: Duration,
    look: Duration,
}

/// Lanes that one look is for, and most that one transaction gives back.
pub(super) const AT_ONCE: usize = 256;

/// The pause after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A lane that rests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resting {
    since: Instant,
    /// When the store was last looked at.
    looked: Instant,
    /// When something is due, as far as is known.
    next_due: Option<Timestamp>,
}

/// Watches resting lanes until the instance stops.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut looked = Instant::now();
    loop {
        let rested = shared.rested.notified();
        let due = shared.resume_what_is_due();
        let next_look = ELSEWHERE.look.saturating_sub(looked.elapsed());
        let wait = due.map(|due| due.min(next_look));
        let waited = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = waited => {}
            () = rested => continue,
            () = shared.stopping.cancelled() => return,
        }
        if looked.elapsed() < ELSEWHERE.look {
            continue;
        }
        looked = Instant::now();
        let done = async {
            shared.look_at_resting().await?;
            shared.release_rested().await
        };
        match done.await {
            Ok(()) => shared.store_worked(),
            Err(error) => {
                shared.store_failed(&error, "looking at idle endpoints");
                sleep(STORE_PAUSE).await;
            }
        }
    }
}

impl Lanes {
    /// Whether a lane rests, and has nothing under way either.
    fn is_idle(&self, endpoint: EndpointId) -> bool {
        let served = self.served.get(&endpoint);
        self.resting.contains_key(&endpoint) && served.is_some_and(|lane| lane.is_quiet())
    }

    fn pace(&self) -> &'static Pace {
        let is_recent = |made: Instant| made.elapsed() < HERE.rest;
        if self.made_at.is_some_and(is_recent) {
            &HERE
        } else {
            &ELSEWHERE
        }
    }
}

impl Shared {
    /// Has a lane rest, unless there is something to do: then what its feeder knows is returned. The dispatcher may still
    /// have deliveries of it.
    pub(super) fn rest(&self, lane: &Lane, course: Box<Course>) -> Result<(), Box<Course>> {
        let mut lanes = self.lock();
        let is_served = lanes.served.contains_key(&lane.endpoint);
        if !is_served || lane.stop.is_cancelled() || !lane.is_fed() {
            return Err(course);
        }
        // Under the lock: an outcome that is written later finds that the lane rests.
        let next_due = course.next_due(lane.view().next_due);
        lane.keep(course);
        let is_first = lanes.resting.is_empty();
        let is_earlier = next_due.is_some_and(|due| lanes.resting_due.is_none_or(|it| due < it));
        if is_earlier {
            lanes.resting_due = next_due;
        }
        let now = Instant::now();
        let resting = Resting {
            since: now,
            // Not by what was handed over since: after that time nothing more is.
            looked: lane.known_at().unwrap_or(now),
            next_due,
        };
        lanes.resting.insert(lane.endpoint, resting);
        // With a request under way it cannot be given back yet.
        let has_room = lanes.lacks_room && lane.is_quiet();
        drop(lanes);
        if is_first || is_earlier {
            self.rested.notify_one();
        }
        if has_room {
            self.look.notify_one();
        }
        Ok(())
    }

    /// Has lanes fed that rest and have more to do after outcomes were written.
    pub(super) fn attempts_ended(self: &Arc<Self>, ended: Vec<(EndpointId, bool)>) {
        let mut lanes = self.lock();
        let mut has_idle = false;
        for (endpoint, has_more) in ended {
            if has_more {
                self.resume(&mut lanes, endpoint);
            } else if lanes.lacks_room {
                has_idle |= lanes.is_idle(endpoint);
            }
        }
        drop(lanes);
        if has_idle {
            self.look.notify_one();
        }
    }

    /// Ends the rest of a lane, if it rests.
    pub(super) fn resume(self: &Arc<Self>, lanes: &mut Lanes, endpoint: EndpointId) {
        if lanes.resting.remove(&endpoint).is_some()
            && let Some(lane) = lanes.served.get(&endpoint)
        {
            self.start_feeder(Arc::clone(lane));
        }
    }

    /// Ends the rest of lanes that have something due. Returns the time until the next has; `None` when no lane
    /// rests.
    fn resume_what_is_due(self: &Arc<Self>) -> Option<Duration> {
        let mut lanes = self.lock();
        let now = self.clock.now();
        if lanes.resting_due.is_some_and(|due| due <= now) {
            let is_due = |resting: &Resting| resting.next_due.is_some_and(|due| due <= now);
            let resting = lanes.resting.iter();
            let due: Vec<_> = resting
                .filter(|(_, resting)| is_due(resting))
                .map(|(endpoint, _)| *endpoint)
                .collect();
            for endpoint in due {
                self.resume_with_work(&mut lanes, endpoint);
            }
            lanes.resting_due = lanes.resting.values().filter_map(|it| it.next_due).min();
        }
        if lanes.resting.is_empty() {
            return None;
        }
        Some(
            lanes
                .resting_due
                .map_or(Duration::MAX, |due| self.clock.until(due)),
        )
    }

    fn resume_with_work(self: &Arc<Self>, lanes: &mut Lanes, endpoint: EndpointId) {
        if let Some(lane) = lanes.served.get(&endpoint) {
            lane.add_work();
        }
        self.resume(lanes, endpoint);
    }

    /// Looks for what has become due or was changed by another instance.
    async fn look_at_resting(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut resting: Vec<_> = {
            let lanes = self.lock();
            let (pace, now) = (lanes.pace(), Instant::now());
            let waits = |(_, it): &(&EndpointId, &Resting)| now - it.looked >= pace.look;
            let since = |(endpoint, it): (&EndpointId, &Resting)| (*endpoint, it.since);
            lanes.resting.iter().filter(waits).map(since).collect()
        };
        // Neighbours share pages of the database, which SQLite reads again for each look after a commit.
        resting.sort_unstable_by_key(|(endpoint, _)| *endpoint);
        for some in resting.chunks(AT_ONCE) {
            let endpoints: Vec<_> = some.iter().map(|(endpoint, _)| *endpoint).collect();
            let (began, now) = (Instant::now(), self.clock.now());
            let found = self.store.next_due(&endpoints).await?;
            let mut lanes = self.lock();
            for (NextDue { revision, due }, (endpoint, since)) in found.iter().zip(some) {
                let is_the_same = |resting: &&mut Resting| resting.since == *since;
                let Some(lane) = lanes.served.get(endpoint).cloned() else {
                    continue;
                };
                let Some(resting) = lanes.resting.get_mut(endpoint).filter(is_the_same) else {
                    continue;
                };
                if !lane.is_using(*revision) {
                    lane.unblock();
                    self.resume(&mut lanes, *endpoint);
                } else if due.is_some_and(|due| due <= now) {
                    self.resume_with_work(&mut lanes, *endpoint);
                } else {
                    resting.looked = began;
                    resting.next_due = *due;
                    lane.knows_all(began);
                    lanes.resting_due = [lanes.resting_due, *due].into_iter().flatten().min();
                }
            }
        }
        Ok(())
    }

    /// Gives lanes back that have rested for long.
    async fn release_rested(&self) -> Result<(), StoreError> {
        loop {
            let rested = {
                let mut lanes = self.lock();
                let rested = self.rested_for_long(&lanes);
                self.end_rest(&mut lanes, rested)
            };
            let is_last = rested.len() < AT_ONCE;
            if !rested.is_empty() {
                self.give_back(rested).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn rested_for_long(&self, lanes: &Lanes) -> Vec<EndpointId> {
        let rest = lanes.pace().rest;
        let (now, over) = (Instant::now(), later(self.clock.now(), rest));
        let is_over = |(_, resting): &(&EndpointId, &Resting)| {
            now - resting.since >= rest && resting.next_due.is_none_or(|due| due > over)
        };
        let rested = lanes.resting.iter().filter(is_over);
        rested
            .map(|(endpoint, _)| *endpoint)
            .filter(|endpoint| lanes.is_idle(*endpoint))
            .take(AT_ONCE)
            .collect()
    }

    /// Gives those lanes back that have rested for longest, for others that are due. Returns whether there was one;
    /// otherwise the next that rests is a reason to look.
    pub(super) async fn make_room(&self) -> Result<bool, StoreError> {
        let rested = {
            let mut lanes = self.lock();
            let is_idle = |(endpoint, _): &(&EndpointId, &Resting)| lanes.is_idle(**endpoint);
            let mut resting: Vec<_> = lanes.resting.iter().filter(is_idle).collect();
            if resting.len() > AT_ONCE {
                resting.select_nth_unstable_by_key(AT_ONCE, |(_, resting)| resting.since);
                resting.truncate(AT_ONCE);
            }
            let resting = resting.into_iter().map(|(endpoint, _)| *endpoint).collect();
            let rested = self.end_rest(&mut lanes, resting);
            lanes.lacks_room = rested.is_empty();
            rested
        };
        let has_room = !rested.is_empty();
        if has_room {
            self.give_back(rested).await?;
        }
        Ok(has_room)
    }

    /// Ends the service of those of these lanes that still have nothing to do.
    fn end_rest(&self, lanes: &mut Lanes, endpoints: Vec<EndpointId>) -> Vec<Released> {
        let mut ended = Vec::new();
        for endpoint in endpoints {
            let Some(lane) = lanes.served.get(&endpoint).cloned() else {
                continue;
            };
            if lane.is_quiet() {
                lanes.end(&lane);
                lanes.released.insert(endpoint);
                ended.push(Released {
                    endpoint,
                    blocked_until: None,
                    next_open_for: self.circuit_of(&lane),
                });
            }
        }
        ended
    }
}
