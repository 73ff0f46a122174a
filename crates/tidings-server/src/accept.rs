//! Accepts notifications: stores them, then wakes open streams and the fan-out to webhooks.

use std::sync::Arc;

use tidings_notify::Notifier;
use tidings_storage::{Accept, Accepted, Records, StorageError};
use tidings_webhooks::Webhooks;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::telemetry::Accepts;

#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) notifier: Notifier,
    pub(crate) webhooks: Webhooks,
    /// The tasks that a stop waits for.
    pub(crate) tasks: TaskTracker,
    pub(crate) accepts: Accepts,
}

impl Acceptor {
    /// Stores the notifications, all or none, and returns what became of them.
    ///
    /// When this returns, the logs, the unread counts, the message for the fan-out and the
    /// idempotency key are on disk, by one commit. No endpoint has been read: that is the work of the
    /// fan-out, after the response.
    ///
    /// # Cancel safety
    ///
    /// A dropped call continues: what may already be committed must be announced.
    pub(crate) async fn accept(self: &Arc<Self>, accept: Accept) -> Result<Accepted, StorageError> {
        let acceptor = Arc::clone(self);
        let run = async move { acceptor.run(accept).await };
        // A span that is not wanted would hide the one around it.
        let run = run.instrument(tracing::debug_span!("accept"));
        let task = self.tasks.spawn(run.in_current_span());
        task.await
            .unwrap_or_else(|panic| Err(StorageError::failed(panic)))
    }

    async fn run(&self, accept: Accept) -> Result<Accepted, StorageError> {
        let start = Instant::now();
        let accepted = self.records.accept(accept).await;
        self.accepts.finished(&accepted, start.elapsed());
        let accepted = accepted?;
        if let Accepted::Stored {
            events,
            has_webhooks,
        } = &accepted
        {
            self.notifier.announce(events);
            if *has_webhooks {
                self.webhooks.wake();
            }
        }
        Ok(accepted)
    }
}
