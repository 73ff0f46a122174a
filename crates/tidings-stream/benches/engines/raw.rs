/// What every message of the benchmark carries.
pub(crate) const PAYLOAD: [u8; 256] = [b'x'; 256];

/// An engine by itself, used as well as one can for the same promise.
pub(crate) trait Raw: Send + Sync {
    /// Appends so many messages, and returns once that is as durable as the engine makes it.
    async fn publish(&self, batch: usize);

    /// Claims and acknowledges up to so many messages, and returns how many those were.
    async fn consume(&self, batch: usize) -> usize;

    /// Appends one message the way of one transaction for each; `None` where there is no such
    /// thing.
    async fn publish_one_per_transaction(&self) -> Option<()> {
        None
    }
}
