//! The one task that sends what is queued. Messages that wait together become one transaction: it takes
//! PostgreSQL about as long to notify of a hundred as of one.

use std::sync::Arc;
use std::time::Duration;

use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tidings_postgres::{Database, Error as DatabaseError};
use tidings_reconnect::Trouble;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

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

/// Sends what is queued, and deletes bodies once they are too old: its own, and what processes that have
/// ended left behind. `used` is notified when the database was used otherwise.
pub(super) async fn send_all(
    mut queue: mpsc::Receiver<Outgoing>,
    database: Database,
    retention: Duration,
    used: Arc<Notify>,
) {
    let mut waiting = Vec::with_capacity(BATCH);
    // Until when the newest body of our own has to stay, and when to look for those that need not.
    let (mut kept_until, mut clean_at) = (Instant::now(), None);
    let mut trouble = Trouble::new();
    loop {
        tokio::select! {
            received = queue.recv_many(&mut waiting, BATCH) => {
                if received == 0 {
                    return;
                }
                if send(&database, waiting.drain(..)).await {
                    kept_until = Instant::now() + retention;
                    clean_at = Some(clean_at.map_or(kept_until, |at: Instant| at.min(kept_until)));
                }
            }
            () = used.notified() => {
                clean_at.get_or_insert(Instant::now() + retention);
            }
            () = sleep_until(clean_at.unwrap_or(kept_until)), if clean_at.is_some() => {
                let now = Instant::now();
                clean_at = match body::clean(&database, retention).await {
                    Ok(has_more) => {
                        if trouble.worked() {
                            tracing::info!("deleting old large messages works again");
                        }
                        Some(match has_more {
                            true => now,
                            false if kept_until > now => kept_until,
                            false => now + LEFTOVERS.max(retention),
                        })
                    }
                    Err(error) => {
                        if trouble.failed() {
                            let error: &dyn std::error::Error = &error;
                            tracing::warn!(error, "deleting old large messages failed, trying again");
                        }
                        Some(now + retention.max(database.config().reply_limit()))
                    }
                };
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
            ([channel], [content]) => notify(database, channel, content).await,
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

/// Sends one small message.
pub(super) async fn notify(
    database: &Database,
    channel: &str,
    content: &str,
) -> Result<(), DatabaseError> {
    let sending = database.run(|client| async move {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&channel, Type::TEXT), (&content, Type::TEXT)];
        client.query_typed(SEND_ONE, &parameters).await
    });
    sending.await.map(drop)
}
