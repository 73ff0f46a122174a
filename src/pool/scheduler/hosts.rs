use std::collections::HashMap;
use std::sync::Arc;

use super::ready::{Position, ReadyQueue};
use super::{LaneId, Speed};

/// How many attempts are under way to each host, whichever lanes they belong to, and which lanes
/// wait for one of them to end. Without a limit nothing is counted.
#[derive(Debug)]
pub(super) struct Hosts {
    limit: Option<usize>,
    known: HashMap<Arc<str>, Host>,
}

#[derive(Debug)]
struct Host {
    under_way: Attempts,
    blocked: ReadyQueue,
}

/// Attempts to one host, and what they count as.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attempts {
    all: usize,
    new: usize,
    /// Those that are slow, or were begun as such.
    slow: usize,
}

/// What one attempt counts as at its host.
#[derive(Debug)]
pub(super) struct HostPermit {
    speed: Speed,
}

impl Hosts {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            known: HashMap::new(),
        }
    }

    pub(super) fn has_permit(&self, host: &str, speed: Speed) -> bool {
        self.limit
            .is_none_or(|limit| self.under_way(host).have_room(speed, limit))
    }

    pub(super) fn acquire(&mut self, host: &Arc<str>, speed: Speed) -> HostPermit {
        if self.limit.is_some() {
            self.host(host).under_way.add(speed);
        }
        HostPermit { speed }
    }

    /// Takes note that an attempt takes long.
    pub(super) fn mark_late(&mut self, host: &str, permit: &mut HostPermit) {
        let speed = std::mem::replace(&mut permit.speed, Speed::Slow);
        if let Some(host) = self.known.get_mut(host) {
            host.under_way.remove(speed);
            host.under_way.add(Speed::Slow);
        }
    }

    pub(super) fn release(&mut self, host: &str, permit: &HostPermit) {
        if let Some(state) = self.known.get_mut(host) {
            state.under_way.remove(permit.speed);
        }
        self.forget_unused(host);
    }

    /// Lets a lane wait for a permit, and returns the place from which it can be taken out.
    pub(super) fn block(&mut self, host: &Arc<str>, speed: Speed, lane: LaneId) -> Position {
        self.host(host).blocked.push(speed, lane)
    }

    /// Takes a lane out that no longer waits.
    pub(super) fn unblock(&mut self, host: &str, position: Position) {
        if let Some(state) = self.known.get_mut(host) {
            state.blocked.remove(position);
        }
        self.forget_unused(host);
    }

    /// Takes the next lane that may try again beside those that were promised a permit. Call it
    /// until there is none, whenever a permit may have been left unused.
    pub(super) fn next_unblocked(&mut self, host: &str, promised: Attempts) -> Option<LaneId> {
        let limit = self.limit?;
        let state = self.known.get_mut(host)?;
        let taken = state.under_way.and(promised);
        let lane = state.blocked.pop(|speed| taken.have_room(speed, limit));
        self.forget_unused(host);
        lane
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self, host: &str) -> usize {
        self.under_way(host).all
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn under_way(&self, host: &str) -> Attempts {
        (self.known.get(host)).map_or_else(Attempts::default, |host| host.under_way)
    }

    fn host(&mut self, host: &Arc<str>) -> &mut Host {
        self.known.entry(Arc::clone(host)).or_insert_with(|| Host {
            under_way: Attempts::default(),
            blocked: ReadyQueue::new(),
        })
    }

    fn forget_unused(&mut self, host: &str) {
        let unused = |host: &Host| host.under_way.all == 0 && !host.blocked.has_next(|_| true);
        if self.known.get(host).is_some_and(unused) {
            self.known.remove(host);
        }
    }
}

impl Attempts {
    /// Whether an attempt of a speed may begin. Slow ones get half of the limit, and with those of
    /// new lanes three quarters, so that however many endpoints of a host are stalled, the others
    /// continue.
    fn have_room(self, speed: Speed, limit: usize) -> bool {
        let half = limit.div_ceil(2);
        let three_quarters = limit - limit / 4;
        let may_begin = match speed {
            Speed::Quick => true,
            Speed::New => self.new + self.slow < three_quarters,
            Speed::Slow => self.slow < half && self.new + self.slow < three_quarters,
        };
        may_begin && self.all < limit
    }

    pub(super) fn add(&mut self, speed: Speed) {
        self.all += 1;
        self.new += usize::from(speed == Speed::New);
        self.slow += usize::from(speed == Speed::Slow);
    }

    fn remove(&mut self, speed: Speed) {
        self.all -= 1;
        self.new -= usize::from(speed == Speed::New);
        self.slow -= usize::from(speed == Speed::Slow);
    }

    fn and(self, others: Self) -> Self {
        Self {
            all: self.all + others.all,
            new: self.new + others.new,
            slow: self.slow + others.slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_no_longer_waits_is_not_let_in() {
        let mut hosts = Hosts::new(Some(1));
        let host: Arc<str> = "a".into();
        let permit = hosts.acquire(&host, Speed::Quick);
        let places = [1, 2].map(|lane| hosts.block(&host, Speed::Quick, LaneId(lane)));
        hosts.unblock(&host, places[0]);
        assert_eq!(hosts.next_unblocked(&host, Attempts::default()), None);
        hosts.release(&host, &permit);
        let mut promised = Attempts::default();
        promised.add(Speed::Quick);
        assert_eq!(hosts.next_unblocked(&host, promised), None);
        let lane = hosts.next_unblocked(&host, Attempts::default());
        assert_eq!(lane, Some(LaneId(2)));
        assert!(hosts.is_empty());
    }

    #[test]
    fn slow_and_new_attempts_leave_room_for_quick_ones() {
        let slow_first = [Speed::Slow, Speed::New, Speed::Quick];
        let new_first = [Speed::New, Speed::Slow, Speed::Quick];
        // The limit, and how many attempts of each speed can be under way that begin in this order.
        for (limit, order, expected) in [
            (1, slow_first, [1, 0, 0]),
            (2, slow_first, [1, 1, 0]),
            (4, slow_first, [2, 1, 1]),
            (5, slow_first, [3, 1, 1]),
            (64, slow_first, [32, 16, 16]),
            (4, new_first, [3, 0, 1]),
            (64, new_first, [48, 0, 16]),
        ] {
            let mut hosts = Hosts::new(Some(limit));
            let host: Arc<str> = "a".into();
            let mut fill = |speed| {
                let mut begun = 0;
                while hosts.has_permit(&host, speed) {
                    hosts.acquire(&host, speed);
                    begun += 1;
                }
                begun
            };
            assert_eq!(order.map(&mut fill), expected, "{limit}, {order:?}");
        }
    }

    #[test]
    fn what_was_promised_to_slow_and_new_lanes_counts() {
        for (speed, under_way) in [(Speed::New, 2), (Speed::Slow, 1)] {
            let mut hosts = Hosts::new(Some(4));
            let host: Arc<str> = "a".into();
            for _ in 0..under_way {
                hosts.acquire(&host, speed);
            }
            hosts.block(&host, speed, LaneId(1));
            let mut promised = Attempts::default();
            promised.add(speed);
            assert_eq!(hosts.next_unblocked(&host, promised), None);
            let lane = hosts.next_unblocked(&host, Attempts::default());
            assert_eq!(lane, Some(LaneId(1)));
        }
    }

    #[test]
    fn a_late_attempt_takes_room_that_slow_ones_may_have() {
        for speed in [Speed::New, Speed::Quick] {
            let mut hosts = Hosts::new(Some(4));
            let host: Arc<str> = "a".into();
            let mut permits = [(); 2].map(|()| hosts.acquire(&host, speed));
            for permit in &mut permits {
                assert!(hosts.has_permit(&host, Speed::Slow));
                hosts.mark_late(&host, permit);
            }
            assert!(!hosts.has_permit(&host, Speed::Slow));
            assert!(hosts.has_permit(&host, Speed::New));
            for permit in &permits {
                hosts.release(&host, permit);
            }
            assert!(hosts.is_empty());
        }
    }

    #[test]
    fn a_late_attempt_of_a_new_lane_leaves_no_more_room_to_new_ones() {
        let mut hosts = Hosts::new(Some(4));
        let host: Arc<str> = "a".into();
        let mut permits: Vec<_> = (0..3).map(|_| hosts.acquire(&host, Speed::New)).collect();
        assert!(!hosts.has_permit(&host, Speed::New));
        for permit in &mut permits {
            hosts.mark_late(&host, permit);
        }
        assert!(!hosts.has_permit(&host, Speed::New));
        assert!(!hosts.has_permit(&host, Speed::Slow));
        assert!(hosts.has_permit(&host, Speed::Quick));
        for permit in &permits {
            hosts.release(&host, permit);
        }
        assert!(hosts.is_empty());
    }
}
