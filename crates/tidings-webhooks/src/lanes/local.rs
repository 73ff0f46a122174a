//! Trouble of this machine: attempts that it could not make, which say nothing about their endpoints.
//!
//! The lane pauses, longer each time, and the delivery says why it waits. No place of its schedule is used up, unless the
//! trouble lasts: then it is tried by its schedule, as all that fails is, and so it ends.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tidings::{Attempt, AttemptError};
use tidings_reconnect::Trouble;
use tokio::time::Instant;

use super::Shared;
use super::lane::Lane;
use crate::EndpointId;

/// The first pause of a lane, and the longest: they double.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Trouble that lasts for longer is no longer put up with: attempts take places of the schedule.
const SHORT: Duration = Duration::from_secs(3600);

/// How long after its pause a lane without another attempt is remembered: it may be served elsewhere now.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The lanes whose last attempt this machine could not make.
#[derive(Debug, Default)]
pub(super) struct LocalTrouble {
    lanes: FxHashMap<EndpointId, Paused>,
    log: Trouble,
}

#[derive(Debug)]
struct Paused {
    since: Instant,
    pause: Duration,
    until: Instant,
}

impl LocalTrouble {
    /// Notes an attempt that could not be made. Returns until when its lane pauses, unless the trouble lasts, and whether
    /// that is to be logged.
    fn failed(&mut self, endpoint: EndpointId) -> (Option<Instant>, bool) {
        let now = Instant::now();
        let lane = self.lanes.entry(endpoint).or_insert(Paused {
            since: now,
            pause: FIRST_PAUSE,
            until: now + FIRST_PAUSE,
        });
        // Attempts that were under way together are one failure.
        if lane.until <= now {
            lane.pause = (lane.pause * 2).min(LONGEST_PAUSE);
            lane.until = now + lane.pause;
        }
        (lane.is_short().then_some(lane.until), self.log.failed())
    }

    /// Whether the last attempt of a lane could not be made, and one is to be tried alone.
    pub(super) fn is_probed(&self, endpoint: EndpointId) -> bool {
        self.lanes.get(&endpoint).is_some_and(Paused::is_short)
    }

    /// Notes an attempt that was made. Returns `true` if that is to be logged: no lane has trouble any more.
    fn worked(&mut self, endpoint: EndpointId) -> bool {
        self.lanes.remove(&endpoint).is_some() && self.lanes.is_empty() && self.log.worked()
    }

    /// Forgets lanes that were not tried again.
    pub(super) fn forget_old(&mut self) {
        let now = Instant::now();
        self.lanes.retain(|_, lane| now < lane.until + REMEMBERED);
    }
}

impl Paused {
    fn is_short(&self) -> bool {
        self.since.elapsed() < SHORT
    }
}

impl Shared {
    /// Notes that this machine could not make an attempt. Returns until when the lane pauses, unless the trouble lasts.
    pub(super) fn attempt_was_local(&self, lane: &Lane, attempt: &Attempt) -> Option<Instant> {
        let (until, is_news) = self.lock().local.failed(lane.endpoint);
        if let Some(until) = until {
            // Kept in the store, too, when the lane is given back: another machine may be better off by then.
            lane.block(until);
        }
        let (endpoint, error) = (lane.endpoint, attempt.result.as_ref().err());
        let cause = error.map(AttemptError::cause);
        if is_news {
            tracing::warn!(cause, %endpoint, "this machine cannot make webhook attempts, trying again");
        } else {
            tracing::debug!(cause, %endpoint, "this machine cannot make a webhook attempt");
        }
        until
    }

    /// Notes that this machine made an attempt, whatever came of it.
    pub(super) fn attempt_was_made(&self, lane: &Lane) {
        if self.lock().local.worked(lane.endpoint) {
            tracing::info!("this machine can make webhook attempts again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_pauses_for_longer_each_time_and_no_more_if_the_trouble_lasts() {
        let mut local = LocalTrouble::default();
        let endpoint = EndpointId::random();
        let (begun, mut pauses, mut news) = (Instant::now(), Vec::new(), 0);
        while let (Some(until), is_news) = local.failed(endpoint) {
            news += usize::from(is_news);
            assert!(local.is_probed(endpoint));
            // What was under way at the same time has the same pause.
            assert_eq!(local.failed(endpoint), (Some(until), false));
            pauses.push((until - Instant::now()).as_secs());
            tokio::time::sleep_until(until).await;
            local.forget_old();
        }
        assert_eq!(pauses[..6], [5, 10, 20, 40, 60, 60]);
        assert!(pauses[6..].iter().all(|pause| *pause == 60));
        assert!((SHORT..SHORT + LONGEST_PAUSE).contains(&begun.elapsed()));
        // Once in ten minutes, however often it is tried.
        assert!((2..=6).contains(&news), "{news}");
        assert!(!local.is_probed(endpoint));
        assert_eq!(local.failed(endpoint).0, None);
        // An attempt that was made ends it, and so does a long time without one.
        assert!(local.worked(endpoint));
        assert!(local.failed(endpoint).0.is_some());
        tokio::time::sleep(SHORT + REMEMBERED).await;
        local.forget_old();
        assert!(local.lanes.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_when_no_lane_has_trouble() {
        let mut local = LocalTrouble::default();
        let [a, b, other] = [(); 3].map(|()| EndpointId::random());
        assert!(local.failed(a).1);
        assert!(!local.failed(b).1);
        assert!(!local.worked(other));
        assert!(!local.worked(a));
        assert!(local.worked(b));
        assert!(!local.worked(b));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(local.failed(a).1);
    }
}
