//! Consumer groups.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{content, delete};
use crate::engine::{self, GroupKey};
use crate::{Error, Result, StartFrom};

/// A group and the ends of its stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupRow {
    pub(super) group_id: i64,
    pub(super) cursor: i64,
    pub(super) claims: i64,
    pub(super) stream_id: i64,
    pub(super) head: i64,
    pub(super) tail: i64,
}

/// Finds a group.
pub(super) fn find(connection: &Connection, key: &GroupKey) -> Result<Option<GroupRow>> {
    let row = connection
        .prepare_cached(
            "SELECT g.group_id, g.cursor, g.claims, s.stream_id, s.head, s.tail
             FROM stream AS s JOIN stream_group AS g USING (stream_id)
             WHERE s.name = ?1 AND g.name = ?2",
        )?
        .query_row(params![key.stream.as_str(), key.group.as_str()], |row| {
            Ok(GroupRow {
                group_id: row.get(0)?,
                cursor: row.get(1)?,
                claims: row.get(2)?,
                stream_id: row.get(3)?,
                head: row.get(4)?,
                tail: row.get(5)?,
            })
        })
        .optional()?;
    Ok(row)
}

/// Creates a group, and its stream, unless they exist. One writer at a time makes this atomic
/// against publishing.
pub(super) fn open(transaction: &Transaction<'_>, key: &GroupKey, start: StartFrom) -> Result<()> {
    if find(transaction, key)?.is_some() {
        return Ok(());
    }
    let (stream_id, head, tail): (i64, i64, i64) = transaction
        .prepare_cached(
            "INSERT INTO stream (name) VALUES (?1)
             ON CONFLICT (name) DO UPDATE SET name = name
             RETURNING stream_id, head, tail",
        )?
        .query_row([key.stream.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let cursor = position(transaction, stream_id, head, tail, start)?;
    transaction
        .prepare_cached(
            "INSERT INTO stream_group (stream_id, name, cursor, claims) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            stream_id,
            key.group.as_str(),
            cursor,
            engine::first_claim().cast_signed()
        ])?;
    Ok(())
}

/// Moves a group, without what it has pending, which goes out of sight. Returns the id of the stream that this is in.
pub(super) fn seek(transaction: &Transaction<'_>, key: &GroupKey, to: StartFrom) -> Result<i64> {
    let group = find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let cursor = position(transaction, group.stream_id, group.head, group.tail, to)?;
    let hidden = delete::hide_group(transaction, group.group_id)?;
    transaction
        .prepare_cached(
            "INSERT INTO stream_group (stream_id, name, cursor, claims, dead_lettered, lost_to_trim)
             SELECT ?2, name, ?3, claims, dead_lettered, lost_to_trim
             FROM stream_group WHERE group_id = ?1",
        )?
        .execute([group.group_id, group.stream_id, cursor])?;
    let moved = transaction.last_insert_rowid();
    transaction
        .prepare_cached("UPDATE stream_member SET group_id = ?2 WHERE group_id = ?1")?
        .execute([group.group_id, moved])?;
    Ok(hidden)
}

/// The number before the first one that a group would get from here.
fn position(
    transaction: &Transaction<'_>,
    stream_id: i64,
    head: i64,
    tail: i64,
    start: StartFrom,
) -> Result<i64> {
    let first_at = |time| {
        let first = content::first_at(transaction, stream_id, tail, head, time);
        first.map(i64::cast_unsigned)
    };
    let position = start.position(tail.cast_unsigned(), head.cast_unsigned(), first_at);
    position.map(u64::cast_signed)
}

/// Adds to a group's count of messages that were trimmed too early for it.
pub(super) fn count_lost(
    transaction: &Transaction<'_>,
    group_id: i64,
    messages: i64,
) -> Result<()> {
    if messages > 0 {
        transaction
            .prepare_cached(
                "UPDATE stream_group SET lost_to_trim = lost_to_trim + ?2 WHERE group_id = ?1",
            )?
            .execute(params![group_id, messages])?;
    }
    Ok(())
}
