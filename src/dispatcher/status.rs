use std::time::Duration;

use tokio::time::Instant;

use crate::circuit_breaker::CircuitState;

/// How an endpoint is doing: a lane of a [`Dispatcher`](crate::Dispatcher), or the only one of a
/// [`Client`](crate::Client).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Messages that are queued or wait for their next attempt.
    pub queued: usize,
    /// Attempts under way.
    pub in_flight: u32,
    /// How many attempts may be under way at present.
    pub in_flight_limit: u32,
    /// How long the endpoint keeps a worker.
    pub speed: Speed,
    /// The state of the circuit breaker, if there is one.
    pub circuit: Option<CircuitState>,
    /// For how long the circuit opens if its probes fail. `None` when it is closed, was opened by hand, or
    /// there is no circuit breaker.
    pub next_open_for: Option<Duration>,
    /// Until when nothing is sent: until the open circuit is probed, or until the time that the
    /// endpoint asked for with `Retry-After`. `None` when nothing blocks the lane, or when its
    /// circuit was opened by hand and has no end.
    pub blocked_until: Option<Instant>,
    /// Whether the endpoint replied `410 Gone`. Then nothing is queued, and new messages are
    /// refused, until the endpoint is [inserted](crate::Dispatcher::insert) again. Never so for a
    /// [`Client`](crate::Client).
    pub is_gone: bool,
}

/// How long an endpoint keeps a worker, going by its last attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Speed {
    /// No attempt has ended yet.
    New,
    /// The last attempts ended quickly, whatever the result; at most one of them took long.
    Quick,
    /// Of the last eight attempts and those under way, two took long; for a new endpoint, one.
    Slow,
}
