//! Webhook deliveries: one message to one endpoint until its final outcome, with every attempt.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction};
use tidings::Message;
use tidings_notify::EventType;
use uuid::Uuid;

use crate::endpoints::{self, Endpoint};

pub(crate) const SCHEMA: &[&str] = &["
    -- What is posted, once for all the endpoints that it goes to.
    CREATE TABLE message (
        id TEXT PRIMARY KEY,
        type TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE delivery (
        id TEXT PRIMARY KEY,        -- ordered by the time of creation
        message_id TEXT NOT NULL,
        endpoint_id TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        next_attempt_at INTEGER,    -- microseconds since 1970, as are all times here
        created_at INTEGER NOT NULL,
        finished_at INTEGER,
        reason TEXT                 -- why it ended without another attempt
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivery_endpoint ON delivery (endpoint_id, id);
    CREATE INDEX delivery_state ON delivery (state, id);
    CREATE INDEX delivery_pending ON delivery (endpoint_id) WHERE finished_at IS NULL;
    CREATE INDEX delivery_message ON delivery (message_id);
    CREATE INDEX delivery_finished ON delivery (finished_at) WHERE finished_at IS NOT NULL;
    CREATE TABLE attempt (
        delivery_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        status INTEGER,
        error TEXT,
        response BLOB NOT NULL,
        PRIMARY KEY (delivery_id, number)
    ) STRICT, WITHOUT ROWID;
"];

/// Deliveries that one cleaning removes at most, so that it never holds up the writer for long.
const CLEANED_AT_ONCE: u32 = 500;

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There will be a next attempt.
    Pending,
    /// The receiver took it.
    Delivered,
    /// The attempts are used up, or the receiver refused for good.
    Failed,
    /// Its endpoint was removed or disabled first.
    Cancelled,
}

impl State {
    const ALL: [Self; 4] = [
        Self::Pending,
        Self::Delivered,
        Self::Failed,
        Self::Cancelled,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A delivery as stored.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    /// What the receiver sees as `webhook-id`: the event's id.
    pub(crate) message_id: String,
    pub(crate) message_type: String,
    pub(crate) endpoint_id: String,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    pub(crate) next_attempt_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    pub(crate) finished_at: Option<Timestamp>,
    /// Why it ended without another attempt.
    pub(crate) reason: Option<String>,
}

/// One request of a delivery.
#[derive(Debug)]
pub(crate) struct AttemptRecord {
    pub(crate) number: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    /// The head of the response body, as text.
    pub(crate) response: String,
}

/// What a worker needs for the next attempt.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) attempts: u32,
    /// When the next attempt is due; in the past when it is late.
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) message: Message,
    /// `None` when the endpoint has been removed.
    pub(crate) endpoint: Option<Endpoint>,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another attempt, after this long.
    Retry(Duration),
    /// Nothing more.
    Finish(State),
}

/// Stores a message for an endpoint, to be attempted at `due_at`; answers the new delivery's id.
pub(crate) fn create(
    tx: &Transaction<'_>,
    message: &Message,
    endpoint: &Endpoint,
    due_at: Timestamp,
) -> rusqlite::Result<String> {
    tx.prepare_cached("INSERT OR IGNORE INTO message (id, type, body) VALUES (?1, ?2, ?3)")?
        .execute((
            message.id(),
            message.event_type().map_or("", EventType::as_str),
            message.body().as_ref(),
        ))?;
    let id = format!("dlv_{}", Uuid::now_v7().simple());
    tx.prepare_cached(
        "INSERT INTO delivery
             (id, message_id, endpoint_id, state, attempts, next_attempt_at, created_at)
         VALUES (?1, ?2, ?3, 'pending', 0, ?4, ?5)",
    )?
    .execute((
        &id,
        message.id(),
        &endpoint.id,
        due_at.as_microsecond(),
        Timestamp::now().as_microsecond(),
    ))?;
    Ok(id)
}

/// Reads what the next attempt of a pending delivery needs; `None` when there is nothing to do.
pub(crate) fn work(connection: &Connection, id: &str) -> rusqlite::Result<Option<Work>> {
    let found = connection
        .prepare_cached(
            "SELECT delivery.attempts, delivery.endpoint_id, message.id, message.type, message.body,
                    delivery.next_attempt_at
             FROM delivery JOIN message ON message.id = delivery.message_id
             WHERE delivery.id = ?1 AND delivery.state = 'pending'",
        )?
        .query_row([id], |row| {
            let body: Vec<u8> = row.get(4)?;
            Ok((
                row.get(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                Bytes::from(body),
                row.get(5)?,
            ))
        })
        .optional()?;
    let Some((attempts, endpoint_id, message_id, message_type, body, due_at)) = found else {
        return Ok(None);
    };
    Ok(Some(Work {
        attempts,
        due_at: time(due_at),
        message: stored_message(message_id, &message_type, body)
            .map_err(|error| FromSqlConversionFailure(2, Type::Text, error))?,
        endpoint: endpoints::find(connection, &endpoint_id)?,
    }))
}

fn stored_message(
    id: String,
    event_type: &str,
    body: Bytes,
) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Message::new(body)
        .with_id(id)?
        .with_type(EventType::new(event_type)?)
        .with_content_type(HeaderValue::from_static("application/json")))
}

/// Records an attempt together with what follows from it.
pub(crate) fn record(
    tx: &Transaction<'_>,
    id: &str,
    attempt: &AttemptRecord,
    next: Next,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO attempt
             (delivery_id, number, started_at, duration_us, status, error, response)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        id,
        attempt.number,
        attempt.started_at.as_microsecond(),
        i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX),
        attempt.status,
        &attempt.error,
        attempt.response.as_bytes(),
    ))?;
    match next {
        Next::Retry(after) => {
            let at = Timestamp::now()
                .checked_add(after)
                .unwrap_or(Timestamp::MAX)
                .as_microsecond();
            tx.prepare_cached(
                "UPDATE delivery SET attempts = ?2, next_attempt_at = ?3 WHERE id = ?1",
            )?
            .execute((id, attempt.number, at))?;
            Ok(())
        }
        Next::Finish(state) => {
            tx.prepare_cached("UPDATE delivery SET attempts = ?2 WHERE id = ?1")?
                .execute((id, attempt.number))?;
            finish(tx, id, state, None)
        }
    }
}

/// Ends a delivery; `reason` says why there is no other attempt, where the attempts do not.
pub(crate) fn finish(
    tx: &Transaction<'_>,
    id: &str,
    state: State,
    reason: Option<&str>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE delivery SET state = ?2, next_attempt_at = NULL, finished_at = ?3, reason = ?4
         WHERE id = ?1",
    )?
    .execute((
        id,
        state.as_str(),
        Timestamp::now().as_microsecond(),
        reason,
    ))?;
    Ok(())
}

/// Ends every delivery of an endpoint that has not ended.
pub(crate) fn cancel_all(
    tx: &Transaction<'_>,
    endpoint_id: &str,
    reason: &str,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE delivery
         SET state = 'cancelled', next_attempt_at = NULL, finished_at = ?2, reason = ?3
         WHERE endpoint_id = ?1 AND finished_at IS NULL",
    )?
    .execute((endpoint_id, Timestamp::now().as_microsecond(), reason))?;
    Ok(())
}

/// Which deliveries a caller wants to see.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) endpoint_id: Option<String>,
    pub(crate) state: Option<State>,
    /// Only those created before this one.
    pub(crate) before: Option<String>,
}

const COLUMNS: &str = "delivery.id, message_id, message.type, endpoint_id, state, attempts,
    next_attempt_at, delivery.created_at, finished_at, reason";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let state = row.get_ref(4)?.as_str()?;
    Ok(Delivery {
        id: row.get(0)?,
        message_id: row.get(1)?,
        message_type: row.get(2)?,
        endpoint_id: row.get(3)?,
        state: State::parse(state)
            .ok_or_else(|| rusqlite::Error::InvalidColumnType(4, state.to_owned(), Type::Text))?,
        attempts: row.get(5)?,
        next_attempt_at: time(row.get(6)?),
        created_at: time(row.get(7)?).unwrap_or(Timestamp::UNIX_EPOCH),
        finished_at: time(row.get(8)?),
        reason: row.get(9)?,
    })
}

fn time(microseconds: Option<i64>) -> Option<Timestamp> {
    microseconds.and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok())
}

/// The newest deliveries first, at most `limit`.
pub(crate) fn list(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
) -> rusqlite::Result<Vec<Delivery>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Only the conditions that there are, so that each combination finds its index.
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<&dyn ToSql> = vec![&limit];
    let state = filter.state.map(State::as_str);
    if let Some(endpoint_id) = &filter.endpoint_id {
        values.push(endpoint_id);
        conditions.push(format!("endpoint_id = ?{}", values.len()));
    }
    if let Some(state) = &state {
        values.push(state);
        conditions.push(format!("state = ?{}", values.len()));
    }
    if let Some(before) = &filter.before {
        values.push(before);
        conditions.push(format!("delivery.id < ?{}", values.len()));
    }
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM delivery JOIN message ON message.id = delivery.message_id
             WHERE {} ORDER BY delivery.id DESC LIMIT ?1",
            conditions.join(" AND ")
        ))?
        .query_map(values.as_slice(), from_row)?
        .collect()
}

/// The attempts of a delivery in order; `None` when there is no such delivery.
pub(crate) fn attempts(
    connection: &Connection,
    id: &str,
) -> rusqlite::Result<Option<Vec<AttemptRecord>>> {
    let known = connection
        .prepare_cached("SELECT 1 FROM delivery WHERE id = ?1")?
        .exists([id])?;
    if !known {
        return Ok(None);
    }
    connection
        .prepare_cached(
            "SELECT number, started_at, duration_us, status, error, response FROM attempt
             WHERE delivery_id = ?1 ORDER BY number",
        )?
        .query_map([id], |row| {
            Ok(AttemptRecord {
                number: row.get(0)?,
                started_at: time(row.get(1)?).unwrap_or(Timestamp::UNIX_EPOCH),
                duration: Duration::from_micros(row.get::<_, i64>(2)?.unsigned_abs()),
                status: row.get(3)?,
                error: row.get(4)?,
                response: String::from_utf8_lossy(row.get_ref(5)?.as_blob()?).into_owned(),
            })
        })?
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// How many deliveries have a next attempt.
pub(crate) fn count_pending(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM delivery WHERE finished_at IS NULL")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

/// Forgets deliveries that ended before the cutoff, with their attempts and the messages that
/// nobody refers to any more; answers how many, at most five hundred.
pub(crate) fn clean(tx: &Transaction<'_>, cutoff: Timestamp) -> rusqlite::Result<usize> {
    let old: Vec<(String, String)> = tx
        .prepare_cached(
            "SELECT id, message_id FROM delivery WHERE finished_at < ?1 ORDER BY finished_at LIMIT ?2",
        )?
        .query_map((cutoff.as_microsecond(), CLEANED_AT_ONCE), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut attempts = tx.prepare_cached("DELETE FROM attempt WHERE delivery_id = ?1")?;
    let mut deliveries = tx.prepare_cached("DELETE FROM delivery WHERE id = ?1")?;
    let mut messages = tx.prepare_cached(
        "DELETE FROM message WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = ?1)",
    )?;
    for (id, message_id) in &old {
        attempts.execute([id])?;
        deliveries.execute([id])?;
        messages.execute([message_id])?;
    }
    Ok(old.len())
}
