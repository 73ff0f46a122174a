use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::scheduler::LaneId;

/// How many attempts are under way to each host, whichever lanes they belong to, and which lanes
/// wait for one of them to end.
#[derive(Debug)]
pub(super) struct Hosts {
    limit: usize,
    hosts: HashMap<Arc<str>, Host>,
}

#[derive(Debug, Default)]
struct Host {
    in_flight: usize,
    /// Lanes in the order in which they were turned away.
    blocked: BTreeMap<u64, LaneId>,
}

impl Hosts {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            hosts: HashMap::new(),
        }
    }

    pub(super) fn has_room(&self, host: &str) -> bool {
        self.in_flight(host) < self.limit
    }

    pub(super) fn in_flight(&self, host: &str) -> usize {
        self.hosts.get(host).map_or(0, |host| host.in_flight)
    }

    pub(super) fn began(&mut self, host: &Arc<str>) {
        self.hosts.entry(Arc::clone(host)).or_default().in_flight += 1;
    }

    pub(super) fn ended(&mut self, host: &str) {
        if let Some(state) = self.hosts.get_mut(host) {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
        self.forget_unused(host);
    }

    pub(super) fn block(&mut self, host: &Arc<str>, ticket: u64, lane: LaneId) {
        let host = self.hosts.entry(Arc::clone(host)).or_default();
        host.blocked.insert(ticket, lane);
    }

    /// Takes a lane out that no longer waits.
    pub(super) fn unblock(&mut self, host: &str, ticket: u64) {
        if let Some(state) = self.hosts.get_mut(host) {
            state.blocked.remove(&ticket);
        }
        self.forget_unused(host);
    }

    /// The next lane that may try again: call it until there is none, whenever room may have been
    /// left unused.
    pub(super) fn next_unblocked(&mut self, host: &str, promised: usize) -> Option<LaneId> {
        let state = self.hosts.get_mut(host)?;
        if state.in_flight.saturating_add(promised) >= self.limit {
            return None;
        }
        let lane = state.blocked.pop_first().map(|(_, lane)| lane);
        self.forget_unused(host);
        lane
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    fn forget_unused(&mut self, host: &str) {
        let unused = |host: &Host| host.in_flight == 0 && host.blocked.is_empty();
        if self.hosts.get(host).is_some_and(unused) {
            self.hosts.remove(host);
        }
    }
}
