//! The engine alone.

/// What every event carries: 256 bytes of JSON.
pub(crate) fn payload() -> String {
    format!("\"{}\"", "x".repeat(254))
}

/// The type of every event.
pub(crate) const TYPE: &str = "bench.event";

/// An engine as one would use it by hand for a log: events with a number that is drawn in the same
/// transaction, a type, a time and a payload, on disk when the call returns.
pub(crate) trait Raw {
    /// Appends so many events to the logs of so many users, by turns.
    async fn append(&self, users: usize, events: usize);
}
