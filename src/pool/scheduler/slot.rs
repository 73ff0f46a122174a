use std::sync::Arc;

use tokio::time::Instant;

use super::turns::Turn;
use crate::Endpoint;
use crate::circuit_breaker::CircuitState;
use crate::pool::lane::Lane;

/// What is known about how long an endpoint keeps a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No attempt has ended yet.
    New,
    /// The last attempt ended quickly, whatever came of it.
    Quick,
    /// The last attempt took long, or one under way does.
    Slow,
}

impl Standing {
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
    /// The standing by the last attempt that ended.
    pub(super) last: Standing,
    /// The circuit as it was last seen, and as it was told to the callback.
    pub(super) seen_circuit: Option<CircuitState>,
    pub(super) told_circuit: Option<CircuitState>,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Queued(Turn),
    /// Waits for room at its host.
    Blocked(u64),
}

impl Slot {
    pub(super) fn new(lane: Lane, standing: Standing) -> Self {
        Self {
            host: host_of(&lane.endpoint),
            place: Place::Nowhere,
            wake_at: None,
            late: 0,
            last: standing,
            seen_circuit: lane.circuit_state(),
            told_circuit: lane.circuit_state(),
            lane,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        if self.late > 0 {
            Standing::Slow
        } else {
            self.last
        }
    }
}

/// The name that an endpoint's limit per host goes by: without the port, because a slow machine is
/// slow on all of them.
pub(super) fn host_of(endpoint: &Endpoint) -> Arc<str> {
    endpoint.url().host_str().unwrap_or_default().into()
}
