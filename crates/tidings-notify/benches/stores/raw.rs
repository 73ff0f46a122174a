//! The engine alone.

use tidings_notify::Draft;

/// An engine as one would use it by hand for a log, on disk when the call returns: numbers that are drawn in
/// the same transaction, and the columns and indexes that resuming, sweeps, the inbox and cleaning up need.
/// Calls that wait at the same time share a transaction where a commit is what costs most.
pub(crate) trait Raw {
    /// Appends events to the logs of their users, and returns how many have an id now.
    async fn append(&self, drafts: Vec<Draft>) -> usize;
}
