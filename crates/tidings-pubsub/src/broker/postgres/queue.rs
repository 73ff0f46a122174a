//! The one task that sends what is queued. Messages that wait together become one transaction: it takes
//! PostgreSQL about as long to notify of a hundred as of one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tidings_postgres::{Database, Error as DatabaseError};
use tidings_reconnect::Trouble;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Error;
use crate::broker::postgres::body;
use crate::broker::postgres::envelope::{Content, Envelope};

/// Most messages of one transaction.
const BATCH: usize = 256;

/// It is planned each time, because a pooler may give every statement another session; a plan this simple
/// costs next to nothing.
const SEND_ONE: &str = "SELECT pg_notify($1, '1.' || $2)";

/// `pg_notify` is called in the order of the rows, and the number makes each of them unlike the
/// others.
const SEND_BATCH: &str = "
    SELECT count(pg_notify(channel, number || '.' || content))
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS message (channel, content, number)";

/// A message, and who waits for it to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) envelope: Envelope,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// How often a process deletes bodies that others have left behind, once it has used the database.
const LEFTOVERS: Duration = Duration::from_secs(600);

/// How long a task waits after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Sends what is queued, and deletes bodies once they are too old: its own, and what processes that have
/// ended left behind. `used` is notified when the database was used otherwise.
pub(super) async fn send_all(
    queue: mpsc::Receiver<Outgoing>,
    database: Database,
    retention: Duration,
    used: Arc<Notify>,
) {
    let mut sending = Sending {
        queue,
        database,
        retention,
        used,
        waiting: Vec::with_capacity(BATCH),
        kept_until: Instant::now(),
        clean_at: None,
        trouble: Trouble::new(),
    };
    loop {
        match AssertUnwindSafe(sending.step()).catch_unwind().await {
            Ok(true) => {}
            Ok(false) => return,
            // What panics may do so each time.
            Err(_panic) => sleep(PANIC_PAUSE).await,
        }
    }
}

struct Sending {
    queue: mpsc::Receiver<Outgoing>,
    database: Database,
    retention: Duration,
    used: Arc<Notify>,
    waiting: Vec<Outgoing>,
    /// Until when the newest body of our own has to stay.
    kept_until: Instant,
    /// When to look for those that need not.
    clean_at: Option<Instant>,
    trouble: Trouble,
}

impl Sending {
    /// Waits for something to do and does it. Returns `false` when nothing will come any more.
    async fn step(&mut self) -> bool {
        let clean_at = self.clean_at;
        tokio::select! {
            received = self.queue.recv_many(&mut self.waiting, BATCH) => {
                if received == 0 {
                    return false;
                }
                if send(&self.database, self.waiting.drain(..)).await {
                    let kept_until = Instant::now() + self.retention;
                    self.kept_until = kept_until;
                    self.clean_at = Some(clean_at.map_or(kept_until, |at| at.min(kept_until)));
                }
            }
            () = self.used.notified() => {
                self.clean_at = clean_at.or(Some(Instant::now() + self.retention));
            }
            () = sleep_until(clean_at.unwrap_or(self.kept_until)), if clean_at.is_some() => {
                self.clean_at = Some(self.clean().await);
            }
        }
        true
    }

    /// Deletes bodies that are too old, and returns when to do it again.
    async fn clean(&mut self) -> Instant {
        let now = Instant::now();
        match body::clean(&self.database, self.retention).await {
            Ok(has_more) => {
                if self.trouble.worked() {
                    tracing::info!("deleting old large messages works again");
                }
                match has_more {
                    true => now,
                    false if self.kept_until > now => self.kept_until,
                    false => now + LEFTOVERS.max(self.retention),
                }
            }
            Err(error) => {
                if self.trouble.failed() {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "deleting old large messages failed, trying again");
                }
                now + self.retention.max(self.database.config().reply_limit())
            }
        }
    }
}

/// Sends messages in their order, and returns whether some of them were kept as bodies.
async fn send(database: &Database, messages: impl Iterator<Item = Outgoing> + Send) -> bool {
    let mut has_kept = false;
    let mut batch = Batch::default();
    for Outgoing { envelope, reply } in messages {
        // Its caller has gone, and nothing of it has been sent.
        if reply.is_closed() {
            continue;
        }
        let Envelope { channel, content } = envelope;
        match content {
            Content::Inline(content) => {
                batch.channels.push(channel);
                batch.contents.push(content);
                batch.replies.push(reply);
            }
            Content::Stored { topic, body } => {
                std::mem::take(&mut batch).send(database).await;
                has_kept = true;
                let sent = body::send(database, &channel, &topic, &body).await;
                let _gone = reply.send(sent);
            }
        }
    }
    batch.send(database).await;
    has_kept
}

#[derive(Default)]
struct Batch {
    channels: Vec<String>,
    contents: Vec<String>,
    replies: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Batch {
    async fn send(self, database: &Database) {
        if self.replies.is_empty() {
            return;
        }
        let sent = match (&self.channels[..], &self.contents[..]) {
            ([channel], [content]) => notify(database, channel, content, || ()).await,
            _ => self.notify(database).await,
        };
        let sent = sent.map_err(Error::from);
        for reply in self.replies {
            let _gone = reply.send(sent.clone());
        }
    }

    async fn notify(&self, database: &Database) -> Result<(), DatabaseError> {
        let sending = database.run(|client| async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 2] = [
                (&self.channels, Type::TEXT_ARRAY),
                (&self.contents, Type::TEXT_ARRAY),
            ];
            client.query_typed(SEND_BATCH, &parameters).await
        });
        sending.await.map(drop)
    }
}

/// Sends one small message. `begun` is called before it is handed over.
pub(super) async fn notify(
    database: &Database,
    channel: &str,
    content: &str,
    begun: impl FnOnce() + Send,
) -> Result<(), DatabaseError> {
    let sending = database.run(|client| async move {
        begun();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&channel, Type::TEXT), (&content, Type::TEXT)];
        client.query_typed(SEND_ONE, &parameters).await
    });
    sending.await.map(drop)
}

#[cfg(test)]
mod tests {
    use tidings_postgres::Config;
    use tidings_test_support::Panics;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::Namespace;

    #[tokio::test(start_paused = true)]
    async fn a_layer_that_panics_does_not_end_the_task_that_sends() {
        let layer = Panics::at("tidings_pubsub");
        let _default = tidings_test_support::set_default(layer.clone());
        // Nothing listens there: deleting fails, which is logged.
        let database = Database::new(Config::new("postgres://nobody@127.0.0.1:1/none").unwrap());
        let (queue, outgoing) = mpsc::channel(1);
        let used = Arc::new(Notify::new());
        let task = send_all(
            outgoing,
            database,
            Duration::from_secs(60),
            Arc::clone(&used),
        );
        let _task = AbortOnDropHandle::new(tokio::spawn(task));
        used.notify_one();
        while layer.count() == 0 {
            sleep(Duration::from_secs(1)).await;
        }
        let topic = Namespace::default().topic("orders").unwrap();
        let (reply, replied) = oneshot::channel();
        let envelope = Envelope::new(&topic, "paid".into());
        let sent = queue.send(Outgoing { envelope, reply }).await;
        assert!(sent.is_ok(), "the task has ended");
        let failed = replied.await.unwrap().unwrap_err();
        assert!(matches!(failed, Error::Backend(_)), "{failed:?}");
    }
}
