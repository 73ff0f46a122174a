//! Messages that do not fit a notification: rows that every notified listener fetches.

use std::time::Duration;

use bytes::Bytes;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tidings_postgres::{Database, Error as DatabaseError};
use tokio::time::timeout;

use crate::Error;

/// Bodies are not compressed: that would cost more time than it saves.
const SCHEMA: &[&str] = &["
    CREATE UNLOGGED TABLE tidings_pubsub_bodies (
        id bigint PRIMARY KEY,
        body bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE tidings_pubsub_bodies ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE INDEX tidings_pubsub_bodies_by_age ON tidings_pubsub_bodies (created_at);"];

const SEND: &str = "
    WITH kept AS (INSERT INTO tidings_pubsub_bodies (id, body) VALUES ($3, $4))
    SELECT pg_notify($1, '@' || $3 || '.' || $2)";

const FETCH: &str = "SELECT body FROM tidings_pubsub_bodies WHERE id = $1";

/// Several may clean at a time, and share the work.
const CLEAN: &str = "
    DELETE FROM tidings_pubsub_bodies WHERE id IN (
        SELECT id FROM tidings_pubsub_bodies
        WHERE created_at < now() - make_interval(secs => $1)
        ORDER BY created_at LIMIT 1000 FOR UPDATE SKIP LOCKED)";

/// Stores a body and notifies the channel, in one transaction.
pub(super) async fn send(
    database: &Database,
    channel: &str,
    topic: &str,
    body: &Bytes,
) -> Result<(), Error> {
    // A crash of the server empties the table and would restart a sequence: a subscriber that was
    // notified of an earlier body would then fetch a different one under the same number.
    let row = fastrand::i64(0..i64::MAX);
    let body: &[u8] = body;
    let sending = || {
        database.run(|client| async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
                (&channel, Type::TEXT),
                (&topic, Type::TEXT),
                (&row, Type::INT8),
                (&body, Type::BYTEA),
            ];
            client.execute_typed(SEND, &parameters).await
        })
    };
    match sending().await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            let creating = database.migrate("pubsub", SCHEMA);
            let created = timeout(database.config().reply_limit(), creating).await;
            // Whatever became of the table, nothing of the message was sent.
            created.map_err(Error::backend)?.map_err(Error::backend)?;
            sending().await?;
        }
        sent => {
            sent?;
        }
    }
    Ok(())
}

/// The body; `None` when it has been deleted.
pub(super) async fn fetch(database: &Database, row: i64) -> Result<Option<Bytes>, DatabaseError> {
    let body: Option<Vec<u8>> = database
        .run(|client| async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&row, Type::INT8)];
            let row = client.query_typed_opt(FETCH, &parameters).await?;
            row.map(|row| row.try_get(0)).transpose()
        })
        .await?;
    Ok(body.map(Bytes::from))
}

/// Deletes bodies that have been there for longer than they are kept; not so many at once that it
/// would hold up messages. Returns whether there may be more.
pub(super) async fn clean(database: &Database, kept_for: Duration) -> Result<bool, DatabaseError> {
    let kept_for = kept_for.as_secs_f64();
    let deleting = database
        .run(|client| async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&kept_for, Type::FLOAT8)];
            client.execute_typed(CLEAN, &parameters).await
        })
        .await;
    match deleting {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
        deleted => Ok(deleted? >= 1000),
    }
}
