use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ready::Position;
use super::shares::{Common, Waiting};
use crate::circuit_breaker::CircuitState;
use crate::pool::lane::Lane;
use crate::{Endpoint, Speed};

/// How many slow attempts make a lane slow that was quick before: of the last [`REMEMBERED`], and
/// those under way.
const SLOW_ATTEMPTS: usize = 2;

/// How many attempts are remembered. With fewer, an endpoint that stalls every other request would
/// be quick, and one quick reply would make it so.
const REMEMBERED: u32 = u8::BITS;

impl Speed {
    /// In the order of the queues.
    pub(super) const ALL: [Self; 3] = [Self::New, Self::Quick, Self::Slow];
}

/// A lane, and what the scheduler keeps about it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) lane: Lane,
    pub(super) host: Arc<str>,
    pub(super) shares: Arc<[Common]>,
    pub(super) place: Place,
    pub(super) turn: Turn,
    pub(super) wake_at: Option<Instant>,
    /// Attempts under way that take long.
    pub(super) late: usize,
    /// Which of the last attempts took long: a bit for each, the last one in front.
    slow_attempts: u8,
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
    /// It waits until one of its shares has fewer attempts under way.
    Blocked(Waiting),
}

/// How far a lane has come on its way through its shares to its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The last one that let it in is the one before this number; 0 if it had to wait in none.
    LetIn(usize),
    /// It keeps room in so many, from the narrowest on, as one of a speed.
    Keeps(usize, Speed),
}

impl Default for Turn {
    fn default() -> Self {
        Self::LetIn(0)
    }
}

impl Turn {
    pub(super) fn keeps(self) -> bool {
        matches!(self, Self::Keeps(..))
    }

    /// In how many shares it keeps room.
    pub(super) fn kept(self) -> usize {
        match self {
            Self::LetIn(_) => 0,
            Self::Keeps(shares, _) => shares,
        }
    }
}

impl Slot {
    /// Without isolation every lane is quick for good.
    pub(super) fn new(lane: Lane, shares: Arc<[Common]>, is_isolated: bool) -> Self {
        Self {
            host: host_of(&lane.endpoint),
            shares,
            place: Place::Idle,
            turn: Turn::default(),
            wake_at: None,
            late: 0,
            slow_attempts: 0,
            is_proven: !is_isolated,
            reported: lane.circuit_state(),
            lane,
        }
    }

    /// Forgets how long attempts take: they go elsewhere now.
    pub(super) fn restart(&mut self, is_isolated: bool) {
        self.late = 0;
        self.slow_attempts = 0;
        self.is_proven = !is_isolated;
    }

    pub(super) fn speed(&self) -> Speed {
        let slow = self.late + self.slow_attempts.count_ones() as usize;
        match self.is_proven {
            true if slow < SLOW_ATTEMPTS => Speed::Quick,
            false if slow == 0 => Speed::New,
            _ => Speed::Slow,
        }
    }

    /// Whether it waits for room in a share.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.place, Place::Blocked(_))
    }

    /// Takes note of how long an attempt took.
    pub(super) fn learn(&mut self, elapsed: Duration, slow_after: Duration) {
        let is_slow = elapsed > slow_after;
        self.slow_attempts = (self.slow_attempts >> 1) | (u8::from(is_slow) << (REMEMBERED - 1));
        self.is_proven |= !is_slow;
    }
}

/// The name that an endpoint's limit per host goes by: without the port, because a slow machine is
/// slow on all of them.
pub(super) fn host_of(endpoint: &Endpoint) -> Arc<str> {
    endpoint.url().host_str().unwrap_or_default().into()
}
