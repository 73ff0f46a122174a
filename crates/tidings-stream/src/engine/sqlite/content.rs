//! Reading messages.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::schema;
use crate::engine::{self, stored, time};
use crate::{Message, MessageId, Result, StreamName};

/// Most messages of a page.
const MAX_PAGE: i64 = 4096;

/// Bytes of headers and payloads after which a page, or a claim, takes no further message. All writers wait
/// while a claim reads.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// The columns that [`read`] reads, in its order.
pub(super) const CONTENT_COLUMNS: &str = "key, created_at, headers, payload";

/// Reads a message from the [`CONTENT_COLUMNS`].
pub(super) fn read(row: &Row<'_>, stream: &StreamName) -> Result<Message> {
    let number = number(row)?;
    let headers: Option<String> = row.get(2)?;
    let headers = headers.as_deref().map(str::as_bytes);
    let payload: Vec<u8> = row.get(3)?;
    stored::message(
        stream,
        number.cast_unsigned(),
        row.get(1)?,
        headers,
        payload,
    )
}

/// Reads the number of a message from the [`CONTENT_COLUMNS`].
pub(super) fn number(row: &Row<'_>) -> Result<i64> {
    Ok(row.get::<_, i64>(0)? & schema::MAX_NUMBER)
}

/// Reads one message; `None` when it is gone, and an error inside when it cannot be read.
pub(super) fn find(
    connection: &Connection,
    stream: &StreamName,
    stream_id: i64,
    number: i64,
) -> Result<Option<Result<Message>>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CONTENT_COLUMNS} FROM stream_message WHERE key = ?1"
    ))?;
    let mut rows = statement.query([schema::key(stream_id, number)])?;
    Ok(rows.next()?.map(|row| read(row, stream)))
}

/// How long ago a message was appended, or the first one that is kept after it.
pub(super) fn age(
    connection: &Connection,
    stream_id: i64,
    number: i64,
) -> Result<Option<Duration>> {
    let created_at: Option<i64> = connection
        .prepare_cached(
            "SELECT created_at FROM stream_message WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT 1",
        )?
        .query_row(
            [
                schema::key(stream_id, number),
                schema::key(stream_id, schema::MAX_NUMBER),
            ],
            |row| row.get(0),
        )
        .optional()?;
    let now = Timestamp::now().as_millisecond();
    Ok(created_at.map(|created_at| time::duration(now.saturating_sub(created_at))))
}

/// Reads messages of a stream in order, from the first one after a number on.
pub(super) fn page(
    connection: &Connection,
    stream: &StreamName,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<Message>> {
    let stream_id: Option<i64> = connection
        .prepare_cached("SELECT stream_id FROM stream WHERE name = ?1")?
        .query_row([stream.as_str()], |row| row.get(0))
        .optional()?;
    let (after, max) = engine::page(after, max);
    let (Some(stream_id), true) = (stream_id, after < schema::MAX_NUMBER) else {
        return Ok(Vec::new());
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CONTENT_COLUMNS} FROM stream_message
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![
        schema::key(stream_id, after + 1),
        schema::key(stream_id, schema::MAX_NUMBER),
        max.min(MAX_PAGE)
    ])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while bytes < MAX_BYTES
        && let Some(row) = rows.next()?
    {
        let message = read(row, stream)?;
        bytes += message.bytes();
        messages.push(message);
    }
    Ok(messages)
}

/// The number of the first message of `lo` to `hi` that was appended at a time or later, found by
/// halving; `hi + 1` when there is none.
pub(super) fn first_at(
    connection: &Connection,
    stream_id: i64,
    lo: i64,
    hi: i64,
    time: Timestamp,
) -> Result<i64> {
    let time = time::first_milli(time);
    // The message in the middle itself may have been removed by hand.
    let mut statement = connection.prepare_cached(
        "SELECT key, created_at FROM stream_message WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT 1",
    )?;
    let (mut first, mut end) = (lo, hi + 1);
    while first < end {
        let middle = first + (end - first) / 2;
        let keys = [schema::key(stream_id, middle), schema::key(stream_id, end)];
        let found: Option<(i64, i64)> = statement
            .query_row(keys, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((key, created_at)) if created_at < time => {
                first = (key & schema::MAX_NUMBER) + 1;
            }
            _ => end = middle,
        }
    }
    Ok(first)
}
