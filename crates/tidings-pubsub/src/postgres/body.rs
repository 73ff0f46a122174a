//! Messages that do not fit a notification: rows that are fetched by whoever is told of them.

use bytes::Bytes;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::postgres::desk::{Desk, Failure};

/// The lock keeps those apart who create the table at the same time, which PostgreSQL does not do
/// by itself. Bodies are not compressed: that would cost more time than it saves.
const CREATE: &str = "
    SELECT pg_advisory_xact_lock(6074931807742211);
    CREATE UNLOGGED TABLE IF NOT EXISTS tidings_pubsub_bodies (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        body bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE tidings_pubsub_bodies ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE INDEX IF NOT EXISTS tidings_pubsub_bodies_by_age
        ON tidings_pubsub_bodies (created_at);";

const SEND: &str = "
    WITH kept AS (INSERT INTO tidings_pubsub_bodies (body) VALUES ($3) RETURNING id)
    SELECT pg_notify($1, '@' || id || '.' || $2) FROM kept";

const FETCH: &str = "SELECT body FROM tidings_pubsub_bodies WHERE id = $1";

/// Several may clean at a time, and share the work.
const CLEAN: &str = "
    DELETE FROM tidings_pubsub_bodies WHERE id IN (
        SELECT id FROM tidings_pubsub_bodies
        WHERE created_at < now() - make_interval(secs => $1)
        ORDER BY created_at LIMIT 1000 FOR UPDATE SKIP LOCKED)";

/// Keeps a body and tells the channel of it, in one transaction.
pub(super) async fn send(
    desk: &Desk,
    channel: &str,
    topic: &str,
    body: &Bytes,
) -> Result<(), Failure> {
    let line = desk.line().await?;
    let body: &[u8] = body;
    let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
        (&channel, Type::TEXT),
        (&topic, Type::TEXT),
        (&body, Type::BYTEA),
    ];
    let sending = || line.client().execute_typed(SEND, &parameters);
    match desk.answer(&line, sending()).await {
        Err(Failure::Refused(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            let creating = line.client().batch_execute(CREATE);
            desk.answer(&line, creating).await?;
            desk.answer(&line, sending()).await?;
        }
        sent => {
            sent?;
        }
    }
    Ok(())
}

/// The body; `None` when it has been deleted.
pub(super) async fn fetch(desk: &Desk, row: i64) -> Result<Option<Bytes>, Failure> {
    let line = desk.line().await?;
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&row, Type::INT8)];
    let fetching = line.client().query_typed_opt(FETCH, &parameters);
    let Some(row) = desk.answer(&line, fetching).await? else {
        return Ok(None);
    };
    let body: Vec<u8> = row.try_get(0).map_err(Failure::Refused)?;
    Ok(Some(body.into()))
}

/// Deletes bodies that have been there for longer than they are kept; not so many at once that it
/// would hold up messages. Answers whether there may be more.
pub(super) async fn clean(desk: &Desk) -> Result<bool, Failure> {
    let line = desk.line().await?;
    let kept_for = desk.config.retention.as_secs_f64();
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&kept_for, Type::FLOAT8)];
    let cleaning = line.client().execute_typed(CLEAN, &parameters);
    let deleted = desk.answer(&line, cleaning).await?;
    Ok(deleted >= 1000)
}
