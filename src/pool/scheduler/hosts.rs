use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::LaneId;

/// How many attempts are under way to each host, whichever lanes they belong to, and which lanes
/// wait for one of them to end. Without a limit nothing is counted.
#[derive(Debug)]
pub(super) struct Hosts {
    limit: Option<usize>,
    known: HashMap<Arc<str>, Host>,
    next_number: u64,
}

#[derive(Debug, Default)]
struct Host {
    in_flight: usize,
    /// Lanes in the order in which they began to wait.
    blocked: BTreeMap<u64, LaneId>,
}

impl Hosts {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            known: HashMap::new(),
            next_number: 0,
        }
    }

    pub(super) fn has_permit(&self, host: &str) -> bool {
        self.limit.is_none_or(|limit| self.in_flight(host) < limit)
    }

    pub(super) fn in_flight(&self, host: &str) -> usize {
        self.known.get(host).map_or(0, |host| host.in_flight)
    }

    pub(super) fn acquire(&mut self, host: &Arc<str>) {
        if self.limit.is_some() {
            self.known.entry(Arc::clone(host)).or_default().in_flight += 1;
        }
    }

    pub(super) fn release(&mut self, host: &str) {
        if self.limit.is_none() {
            return;
        }
        if let Some(state) = self.known.get_mut(host) {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
        self.forget_unused(host);
    }

    /// Lets a lane wait for a permit, and returns the number by which it can be taken out.
    pub(super) fn block(&mut self, host: &Arc<str>, lane: LaneId) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let host = self.known.entry(Arc::clone(host)).or_default();
        host.blocked.insert(number, lane);
        number
    }

    /// Takes a lane out that no longer waits.
    pub(super) fn unblock(&mut self, host: &str, number: u64) {
        if let Some(state) = self.known.get_mut(host) {
            state.blocked.remove(&number);
        }
        self.forget_unused(host);
    }

    /// Takes the next lane that may try again. Call it until there is none, whenever a permit may
    /// have been left unused.
    pub(super) fn next_unblocked(&mut self, host: &str, promised: usize) -> Option<LaneId> {
        let limit = self.limit?;
        let state = self.known.get_mut(host)?;
        if state.in_flight.saturating_add(promised) >= limit {
            return None;
        }
        let lane = state.blocked.pop_first().map(|(_, lane)| lane);
        self.forget_unused(host);
        lane
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget_unused(&mut self, host: &str) {
        let unused = |host: &Host| host.in_flight == 0 && host.blocked.is_empty();
        if self.known.get(host).is_some_and(unused) {
            self.known.remove(host);
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
        hosts.acquire(&host);
        let numbers = [1, 2].map(|lane| hosts.block(&host, LaneId(lane)));
        hosts.unblock(&host, numbers[0]);
        assert_eq!(hosts.next_unblocked(&host, 0), None);
        hosts.release(&host);
        assert_eq!(hosts.next_unblocked(&host, 1), None);
        assert_eq!(hosts.next_unblocked(&host, 0), Some(LaneId(2)));
        assert!(hosts.is_empty());
    }
}
