//! Appending to a stream.

use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::{clock, schema, trim};
use crate::{Error, Headers, MessageId, NewMessage, Retention, StreamName};

/// The row of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamRow {
    pub(super) stream_id: i64,
    pub(super) head: i64,
    pub(super) tail: i64,
    pub(super) max_len: Option<i64>,
    pub(super) max_age: Option<i64>,
    pub(super) trim_pending: bool,
}

/// The columns that [`StreamRow::read`] reads, in its order.
pub(super) const STREAM_COLUMNS: &str = "stream_id, head, tail, max_len, max_age, trim_pending";

impl StreamRow {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            stream_id: row.get(0)?,
            head: row.get(1)?,
            tail: row.get(2)?,
            max_len: row.get(3)?,
            max_age: row.get(4)?,
            trim_pending: row.get(5)?,
        })
    }
}

/// The streams that one transaction can tell no message could be added to any more.
#[derive(Debug, thiserror::Error)]
#[error("a stream has used up all of its numbers")]
struct OutOfNumbers;

/// Appends messages and answers the stream as it is then. The retention stays as it was.
pub(super) fn append(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    messages: &[NewMessage],
) -> Result<StreamRow, Error> {
    let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
    let row = transaction
        .prepare_cached(
            "INSERT INTO stream (name, head) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET head = head + ?2
             RETURNING stream_id, head, tail, max_len, max_age, trim_pending",
        )?
        .query_row(params![stream.as_str(), count], StreamRow::read)?;
    insert(transaction, &row, messages)?;
    Ok(row)
}

/// Appends messages, stores the retention, trims to it, and answers the first message's id.
pub(super) fn append_and_trim(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    messages: &[NewMessage],
    retention: Retention,
) -> Result<MessageId, Error> {
    let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
    let max_len = retention
        .max_len
        .map(|max| i64::try_from(max.get()).unwrap_or(i64::MAX));
    let row = transaction
        .prepare_cached(
            "INSERT INTO stream (name, head, max_len, max_age, trim_pending)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET
                 head = head + ?2, max_len = ?3, max_age = ?4, trim_pending = ?5
             RETURNING stream_id, head, tail, max_len, max_age, trim_pending",
        )?
        .query_row(
            params![
                stream.as_str(),
                count,
                max_len,
                retention.max_age.map(clock::millis),
                retention.trim_pending
            ],
            StreamRow::read,
        )?;
    insert(transaction, &row, messages)?;
    trim::trim(transaction, &row)?;
    Ok(MessageId::from_u64((row.head - count).cast_unsigned() + 1))
}

/// Writes messages whose numbers have been taken: the last ones up to the head.
fn insert(
    transaction: &Transaction<'_>,
    row: &StreamRow,
    messages: &[NewMessage],
) -> Result<(), Error> {
    if row.head > schema::MAX_NUMBER {
        return Err(Error::backend(OutOfNumbers));
    }
    let now = Timestamp::now().as_millisecond();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO stream_message (key, created_at, headers, payload) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (message, number) in messages.iter().rev().zip((1..=row.head).rev()) {
        let headers = encode(&message.headers)?;
        let payload: &[u8] = &message.payload;
        statement.execute(params![
            schema::key(row.stream_id, number),
            now,
            headers,
            payload
        ])?;
    }
    Ok(())
}

fn encode(headers: &Headers) -> Result<Option<String>, Error> {
    if headers.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(headers)
        .map(Some)
        .map_err(Error::backend)
}
