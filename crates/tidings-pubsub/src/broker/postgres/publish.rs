use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidings_postgres::Database;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::broker::postgres::envelope::{Content, Envelope};
use crate::broker::postgres::queue::{Outgoing, notify};

/// Sends messages: one that comes alone at once, those that come together through the queue, which
/// makes one transaction of many.
#[derive(Debug)]
pub(super) struct Sender {
    database: Database,
    queue: mpsc::Sender<Outgoing>,
    in_flight: AtomicUsize,
    /// Notified once, when the database is used for the first time.
    used: Arc<Notify>,
    is_used: AtomicBool,
}

impl Sender {
    pub(super) fn new(
        database: Database,
        queue: mpsc::Sender<Outgoing>,
        used: Arc<Notify>,
    ) -> Self {
        Self {
            database,
            queue,
            in_flight: AtomicUsize::new(0),
            used,
            is_used: AtomicBool::new(false),
        }
    }

    /// Sends a message, and returns once PostgreSQL has replied, or when the broker is closed.
    pub(super) async fn send(
        &self,
        envelope: Envelope,
        closing: &CancellationToken,
    ) -> Result<(), Error> {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
            self.used.notify_one();
        }
        let is_alone = self.in_flight.fetch_add(1, Ordering::Relaxed) == 0;
        let _in_flight = InFlight(&self.in_flight);
        if is_alone && let Content::Inline(content) = &envelope.content {
            // The queue's task would add its own turn to each way.
            let is_sent = AtomicBool::new(false);
            let begun = || is_sent.store(true, Ordering::Relaxed);
            let sending = notify(&self.database, &envelope.channel, content, begun);
            return match closing.run_until_cancelled(sending).await {
                Some(sent) => Ok(sent?),
                None if is_sent.load(Ordering::Relaxed) => Err(Error::closed_meanwhile()),
                None => Err(Error::Closed),
            };
        }
        let (reply, replied) = oneshot::channel();
        let queued = self.queue.send(Outgoing { envelope, reply }).await;
        queued.map_err(|_| Error::Closed)?;
        // The queue's task ends when the broker is closed. What it has not taken is not told from what it was sending.
        replied.await.unwrap_or_else(|dropped| {
            if closing.is_cancelled() {
                Err(Error::closed_meanwhile())
            } else {
                Err(Error::outcome_unknown(dropped))
            }
        })
    }
}

/// Counts a message until the server has replied to it, or it is given up.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
