//! Appending to a stream.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::schema::StreamRow;
use super::{clock, schema, trim};
use crate::engine::{stored, time};
use crate::{Error, MessageId, NewMessage, PublishKey, Result, Retention, StreamName};

/// The error of a stream that can take no more messages.
#[derive(Debug, thiserror::Error)]
#[error("a stream has used up all of its numbers")]
struct OutOfNumbers;

/// The messages that an append has added, by their ids, and the stream as it is then.
pub(super) struct Appended {
    pub(super) ids: Vec<MessageId>,
    pub(super) row: StreamRow,
}

/// Appends messages, to a new stream if there is none of the name. The retention stays as it was.
pub(super) fn append(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    messages: &[NewMessage],
) -> Result<Appended> {
    // By several statements: for one with `RETURNING`, SQLite keeps a copy of every page that it
    // changes.
    let mut row = match StreamRow::find(transaction, stream)? {
        Some(row) => row,
        None => StreamRow::create(transaction, stream)?,
    };
    let ids = insert(transaction, &mut row, messages)?;
    transaction
        .prepare_cached("UPDATE stream SET head = ?2 WHERE stream_id = ?1")?
        .execute([row.stream_id, row.head])?;
    Ok(Appended { ids, row })
}

/// Appends messages, stores the retention if there is one, trims to what is stored, and returns the
/// messages' ids.
pub(super) fn append_and_trim(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    messages: &[NewMessage],
    retention: Option<Retention>,
) -> Result<Vec<MessageId>> {
    let Appended { ids, mut row } = append(transaction, stream, messages)?;
    if let Some(retention) = retention {
        row.keep(transaction, retention)?;
    }
    trim::trim(transaction, &row)?;
    Ok(ids)
}

/// Stores the retention of a stream, and trims to it.
pub(super) fn set_retention(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    retention: Retention,
) -> Result<()> {
    let Appended { mut row, .. } = append(transaction, stream, &[])?;
    row.keep(transaction, retention)?;
    trim::trim(transaction, &row)?;
    Ok(())
}

/// Writes messages under the numbers that follow, and returns their ids. A repeated publish key takes no
/// number.
fn insert(
    transaction: &Transaction<'_>,
    row: &mut StreamRow,
    messages: &[NewMessage],
) -> Result<Vec<MessageId>> {
    let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
    if row.head.saturating_add(count) > schema::MAX_NUMBER {
        return Err(Error::backend(OutOfNumbers));
    }
    let mut ids = Vec::with_capacity(messages.len());
    let now = Timestamp::now().as_millisecond();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO stream_message (key, created_at, headers, payload) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for message in messages {
        let number = row.head + 1;
        if let Some(key) = &message.publish_key {
            let first = claim_key(transaction, row.stream_id, key, number)?;
            if first != number {
                ids.push(MessageId::from_u64(first.cast_unsigned()));
                continue;
            }
        }
        row.head = number;
        ids.push(MessageId::from_u64(number.cast_unsigned()));
        let headers = stored::encode(&message.headers)?;
        let payload: &[u8] = &message.payload;
        statement.execute(params![
            schema::key(row.stream_id, number),
            now,
            headers,
            payload
        ])?;
    }
    Ok(ids)
}

/// The number of the first message under a key: `number`, which takes the key, unless an earlier
/// one has it and its window is open.
fn claim_key(
    transaction: &Transaction<'_>,
    stream_id: i64,
    key: &PublishKey,
    number: i64,
) -> Result<i64> {
    let now = clock::now();
    let known = transaction
        .prepare_cached(
            "SELECT number FROM stream_publish_key
             WHERE stream_id = ?1 AND key = ?2 AND expires > ?3",
        )?
        .query_row(params![stream_id, key.key, now], |row| row.get(0))
        .optional()?;
    if let Some(first) = known {
        return Ok(first);
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO stream_publish_key VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            stream_id,
            key.key,
            number,
            now.saturating_add(time::millis(key.window))
        ])?;
    Ok(number)
}

/// Removes up to `max` keys whose windows have ended, and returns how many those were.
pub(super) fn forget_expired_keys(transaction: &Transaction<'_>, max: i64) -> Result<i64> {
    let forgotten = transaction
        .prepare_cached(
            "DELETE FROM stream_publish_key WHERE (stream_id, key) IN (
                 SELECT stream_id, key FROM stream_publish_key WHERE expires <= ?1 LIMIT ?2)",
        )?
        .execute([clock::now(), max])?;
    Ok(i64::try_from(forgotten).unwrap_or(i64::MAX))
}
