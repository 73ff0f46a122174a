use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ready::Position;
use crate::circuit_breaker::CircuitState;
use crate::pool::lane::Lane;
use crate::{Endpoint, Speed};

/// How many slow attempts one after the other, or at once, make a lane slow that was quick before.
const SLOW_ATTEMPTS: usize = 2;

impl Speed {
    /// In the order of the queues.
    pub(super) const ALL: [Self; 3] = [Self::New, Self::Quick, Self::Slow];
}

/// A lane, and what the scheduler keeps about it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) lane: Lane,
    pub(super) host: Arc<str>,
    pub(super) place: Place,
    pub(super) wake_at: Option<Instant>,
    /// Attempts under way that take long.
    pub(super) late: usize,
    /// Attempts in a row that took long.
    slow_in_a_row: usize,
    /// Whether an attempt has ended quickly, so that the lane is no longer new.
    is_proven: bool,
    /// The circuit as it was reported last.
    pub(super) reported: Option<CircuitState>,
}

/// Where a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It may not go, or has nothing that is due.
    Idle,
    Ready(Position),
    /// It waits until its host has fewer attempts under way.
    Blocked(Position),
}

impl Slot {
    /// Without isolation every lane is quick for good.
    pub(super) fn new(lane: Lane, is_isolated: bool) -> Self {
        Self {
            host: host_of(&lane.endpoint),
            place: Place::Idle,
            wake_at: None,
            late: 0,
            slow_in_a_row: 0,
            is_proven: !is_isolated,
            reported: lane.circuit_state(),
            lane,
        }
    }

    /// Forgets how long attempts take: they go elsewhere now.
    pub(super) fn restart(&mut self, is_isolated: bool) {
        self.late = 0;
        self.slow_in_a_row = 0;
        self.is_proven = !is_isolated;
    }

    pub(super) fn speed(&self) -> Speed {
        let slow = self.late + self.slow_in_a_row;
        match self.is_proven {
            true if slow < SLOW_ATTEMPTS => Speed::Quick,
            false if slow == 0 => Speed::New,
            _ => Speed::Slow,
        }
    }

    /// Takes note of how long an attempt took.
    pub(super) fn learn(&mut self, elapsed: Duration, slow_after: Duration) {
        if elapsed > slow_after {
            self.slow_in_a_row = (self.slow_in_a_row + 1).min(SLOW_ATTEMPTS);
        } else {
            self.slow_in_a_row = 0;
            self.is_proven = true;
        }
    }
}

/// The name that an endpoint's limit per host goes by: without the port, because a slow machine is
/// slow on all of them.
pub(super) fn host_of(endpoint: &Endpoint) -> Arc<str> {
    endpoint.url().host_str().unwrap_or_default().into()
}
