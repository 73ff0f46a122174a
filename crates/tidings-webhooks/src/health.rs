use jiff::Timestamp;
use serde::Serialize;

/// The health of an endpoint.
///
/// As JSON: `{"circuit","pending","last_success_at","last_failure_at","success_rate","replay"}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct EndpointHealth {
    /// The state of the circuit: `closed`, `open` or `half_open`. `None` when this instance does
    /// not serve the endpoint at present.
    pub circuit: Option<&'static str>,
    /// How many deliveries wait; counted up to [`MAX_COUNTED`].
    pub pending: u64,
    /// When the endpoint last took an event.
    pub last_success_at: Option<Timestamp>,
    /// When an attempt last failed.
    pub last_failure_at: Option<Timestamp>,
    /// The share of attempts that succeeded in the last one to two hours with attempts; `None` when
    /// there were none.
    pub success_rate: Option<f64>,
    /// The replay that is under way.
    pub replay: Option<ReplayProgress>,
}

/// How far a replay is.
///
/// As JSON: `{"remaining","per_second"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ReplayProgress {
    /// How many accepted events it has still to look at: those of all users, at most.
    pub remaining: u64,
    /// How many it sends a second at most.
    pub per_second: u32,
}

impl ReplayProgress {
    /// Of a replay that has looked at the events up to the number `position`, and looks at those up to `last`.
    pub fn new(position: i64, last: i64, per_second: u32) -> Self {
        Self {
            remaining: last.saturating_sub(position).max(0).unsigned_abs(),
            per_second,
        }
    }
}

/// Counting waiting deliveries stops here, so that its cost is bounded.
pub const MAX_COUNTED: u64 = 100_000;

/// The health of an endpoint as a store keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredHealth {
    /// How many deliveries wait, counted up to [`MAX_COUNTED`].
    pub pending: u64,
    /// When the endpoint last accepted an event, by the wall clock.
    pub last_success_at: Option<Timestamp>,
    /// When an attempt last failed, by the wall clock.
    pub last_failure_at: Option<Timestamp>,
    /// Since when every attempt has failed, by the clock of what is due.
    pub failing_since: Option<Timestamp>,
    /// Attempts that succeeded in this hour and the one before it that had attempts.
    pub succeeded: u64,
    /// Attempts that failed in the same time.
    pub failed: u64,
    /// The replay that is under way.
    pub replay: Option<ReplayProgress>,
}

impl StoredHealth {
    pub(crate) fn success_rate(&self) -> Option<f64> {
        let all = self.succeeded + self.failed;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share needs no more digits than a float has"
        )]
        let rate = self.succeeded as f64 / all as f64;
        (all > 0).then_some(rate)
    }
}
