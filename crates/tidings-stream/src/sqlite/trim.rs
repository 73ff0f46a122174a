//! Removing what a stream's retention does not keep.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::append::{STREAM_COLUMNS, StreamRow};
use super::schema;
use crate::Error;

/// Most messages that one call removes, to keep transactions short.
pub(super) const CHUNK: i64 = 1000;

/// The ids of the streams that have a bound.
pub(super) fn bounded_streams(connection: &Connection) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT stream_id FROM stream
         WHERE (max_len IS NOT NULL OR max_age IS NOT NULL) AND tail <= head",
    )?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Removes up to a chunk of one stream, and answers how many messages that was.
pub(super) fn trim_by_id(transaction: &Transaction<'_>, stream_id: i64) -> Result<i64, Error> {
    let row = transaction
        .prepare_cached(&format!(
            "SELECT {STREAM_COLUMNS} FROM stream WHERE stream_id = ?1"
        ))?
        .query_row([stream_id], StreamRow::read)
        .optional()?;
    row.map_or(Ok(0), |row| trim(transaction, &row))
}

/// Removes up to a chunk of one stream, and answers how many messages that was.
pub(super) fn trim(transaction: &Transaction<'_>, row: &StreamRow) -> Result<i64, Error> {
    let by_len = row.max_len.map_or(row.tail, |max| row.head - max + 1);
    let by_age = match row.max_age {
        Some(age) => first_younger(transaction, row, age)?,
        None => row.tail,
    };
    let mut keep = by_len.max(by_age).min(row.tail + CHUNK);
    if keep <= row.tail {
        return Ok(0);
    }
    if !row.trim_pending
        && let Some(needed) = first_needed(transaction, row.stream_id)?
    {
        keep = keep.min(needed);
    }
    if keep <= row.tail {
        return Ok(0);
    }
    transaction
        .prepare_cached("DELETE FROM stream_message WHERE key >= ?1 AND key < ?2")?
        .execute(params![
            schema::key(row.stream_id, row.tail),
            schema::key(row.stream_id, keep)
        ])?;
    transaction
        .prepare_cached("UPDATE stream SET tail = ?2 WHERE stream_id = ?1")?
        .execute(params![row.stream_id, keep])?;
    Ok(keep - row.tail)
}

/// The number of the first message, within a chunk of the oldest, that is younger than `age`.
fn first_younger(transaction: &Transaction<'_>, row: &StreamRow, age: i64) -> Result<i64, Error> {
    let oldest = Timestamp::now().as_millisecond().saturating_sub(age);
    let end = (row.tail + CHUNK).min(row.head + 1);
    let young = transaction
        .prepare_cached(
            "SELECT key FROM stream_message WHERE key >= ?1 AND key < ?2 AND created_at > ?3
             ORDER BY key LIMIT 1",
        )?
        .query_row(
            params![
                schema::key(row.stream_id, row.tail),
                schema::key(row.stream_id, end),
                oldest
            ],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    Ok(young.map_or(end, |key| key & schema::MAX_NUMBER))
}

/// The number of the oldest message that some group has yet to handle; `None` without groups.
fn first_needed(transaction: &Transaction<'_>, stream_id: i64) -> Result<Option<i64>, Error> {
    let needed = transaction
        .prepare_cached(
            "SELECT min(
                 cursor + 1,
                 ifnull((SELECT min(lo) FROM stream_lease AS l WHERE l.group_id = g.group_id),
                        cursor + 1),
                 ifnull((SELECT number FROM stream_retry AS r WHERE r.group_id = g.group_id
                         ORDER BY number LIMIT 1), cursor + 1))
             FROM stream_group AS g WHERE stream_id = ?1 ORDER BY 1 LIMIT 1",
        )?
        .query_row([stream_id], |row| row.get(0))
        .optional()?;
    Ok(needed)
}
