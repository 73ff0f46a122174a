//! Removing what a stream's retention does not keep.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::lease::Lease;
use super::schema::{STREAM_COLUMNS, StreamRow};
use super::{clock, lease, schema};
use crate::engine::{REDRIVE_GROUP, trim_round};
use crate::{Result, StreamName};

/// Most messages that one call removes, to keep transactions short.
pub(super) const CHUNK: i64 = trim_round::CHUNK.cast_signed();

/// The ids and names of the streams that have a bound.
pub(super) fn bounded_streams(connection: &Connection) -> Result<Vec<(i64, StreamName)>> {
    let mut statement = connection.prepare_cached(
        "SELECT stream_id, name FROM stream
         WHERE (max_len IS NOT NULL OR max_age IS NOT NULL) AND tail <= head AND name >= ' '",
    )?;
    let streams = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    streams
        .map(|stream| {
            let (stream_id, name) = stream?;
            Ok((stream_id, name.parse()?))
        })
        .collect()
}

/// Removes up to a chunk of one stream, and returns how many messages that was.
pub(super) fn trim_by_id(transaction: &Transaction<'_>, stream_id: i64) -> Result<u64> {
    let row = transaction
        .prepare_cached(&format!(
            "SELECT {STREAM_COLUMNS} FROM stream WHERE stream_id = ?1"
        ))?
        .query_row([stream_id], StreamRow::read)
        .optional()?;
    let removed = row.map_or(Ok(0), |row| trim(transaction, &row));
    removed.map(i64::cast_unsigned)
}

/// Removes up to a chunk of one stream, and returns how many messages that was.
pub(super) fn trim(transaction: &Transaction<'_>, row: &StreamRow) -> Result<i64> {
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
    lose(transaction, row, keep)?;
    Ok(keep - row.tail)
}

/// Counts what the groups of a stream lose when messages before `tail` are removed: what they have not
/// claimed, and what waits for another attempt. What a consumer has is counted if it comes again.
fn lose(transaction: &Transaction<'_>, row: &StreamRow, tail: i64) -> Result<()> {
    let groups: Vec<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT group_id, cursor FROM stream_group
             WHERE stream_id = ?1 AND (?2 OR name = ?3)",
        )?
        .query_map(
            params![row.stream_id, row.trim_pending, REDRIVE_GROUP],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<Result<_, _>>()?;
    for (group_id, cursor) in groups {
        let waiting: Vec<Option<String>> = transaction
            .prepare_cached(
                "DELETE FROM stream_retry WHERE group_id = ?1 AND number < ?2 AND claim IS NULL
                 RETURNING ordering_key",
            )?
            .query_map([group_id, tail], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let keys: BTreeSet<&str> = waiting.iter().flatten().map(String::as_str).collect();
        for key in keys {
            lease::free_key(transaction, group_id, Some(key), clock::now())?;
        }
        let waiting = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        transaction
            .prepare_cached(
                "UPDATE stream_group SET cursor = max(cursor, ?2), lost_to_trim = lost_to_trim + ?3
                 WHERE group_id = ?1",
            )?
            .execute([group_id, tail - 1, waiting + (tail - 1 - cursor).max(0)])?;
    }
    Ok(())
}

/// The number of the first message, within a chunk of the oldest, that is younger than `age`.
fn first_younger(transaction: &Transaction<'_>, row: &StreamRow, age: i64) -> Result<i64> {
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

/// The number of the oldest message that a group has yet to handle; `None` without groups.
fn first_needed(transaction: &Transaction<'_>, stream_id: i64) -> Result<Option<i64>> {
    let mut groups = transaction.prepare_cached(
        "SELECT g.group_id, min(cursor + 1, ifnull(
             (SELECT min(number) FROM stream_retry AS r WHERE r.group_id = g.group_id),
             cursor + 1))
         FROM stream_group AS g WHERE stream_id = ?1 AND name <> ?2",
    )?;
    let mut needed: Option<i64> = None;
    let mut rows = groups.query(params![stream_id, REDRIVE_GROUP])?;
    while let Some(row) = rows.next()? {
        let group_id: i64 = row.get(0)?;
        let first = Lease::select(transaction, "group_id = ?1 ORDER BY lo LIMIT 1", [group_id])?;
        // A lease that is there has an open number.
        let leased = first.first().and_then(|lease| lease.messages.open().next());
        let leased = leased.map(u64::cast_signed);
        let first = [Some(row.get(1)?), leased, needed].into_iter().flatten();
        needed = first.min();
    }
    Ok(needed)
}
