//! Accepts notifications: stores them, then wakes open streams and the fan-out to webhooks.

use std::sync::Arc;

use tidings_notify::{Event, Notifier};
use tidings_webhooks::Webhooks;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::storage::{Accept, Accepted, Records, StorageError};
use crate::telemetry;

/// Why notifications were not accepted. Nothing of them was stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("the idempotency key was used for another request")]
    IdempotencyConflict,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) notifier: Notifier,
    pub(crate) webhooks: Webhooks,
    /// The tasks that a stop waits for.
    pub(crate) tasks: TaskTracker,
}

impl Acceptor {
    /// Stores the notifications, all or none, and returns them.
    ///
    /// When this returns, the logs, the unread counts, the message for the fan-out and the
    /// idempotency key are on disk, by one commit. No endpoint has been read: that is the work of the
    /// fan-out, after the response.
    ///
    /// # Cancel safety
    ///
    /// A dropped call continues: what may already be committed must be announced.
    pub(crate) async fn accept(&self, accept: Accept) -> Result<Vec<Event>, AcceptError> {
        let acceptor = self.clone();
        let run = async move { acceptor.run(accept).await };
        let task = self.tasks.spawn(run.in_current_span());
        task.await
            .unwrap_or_else(|panic| Err(StorageError::failed(panic).into()))
    }

    async fn run(&self, accept: Accept) -> Result<Vec<Event>, AcceptError> {
        let start = Instant::now();
        let accepted = self.records.accept(accept).await;
        telemetry::accept_finished(&accepted, start.elapsed());
        match accepted? {
            Accepted::Stored {
                events,
                has_webhooks,
            } => {
                self.notifier.announce(&events);
                if has_webhooks {
                    self.webhooks.wake();
                }
                Ok(events)
            }
            Accepted::Repeated(events) => Ok(events),
            Accepted::Conflict => Err(AcceptError::IdempotencyConflict),
        }
    }
}
