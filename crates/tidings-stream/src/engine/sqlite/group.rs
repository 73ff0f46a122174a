//! Consumer groups.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::content;
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

/// Moves a group, and drops what it has pending.
pub(super) fn seek(transaction: &Transaction<'_>, key: &GroupKey, to: StartFrom) -> Result<()> {
    let group = find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let cursor = position(transaction, group.stream_id, group.head, group.tail, to)?;
    drop_pending(transaction, group.group_id)?;
    transaction
        .prepare_cached("UPDATE stream_group SET cursor = ?2 WHERE group_id = ?1")?
        .execute([group.group_id, cursor])?;
    Ok(())
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

/// Deletes a group and what it has pending.
pub(super) fn delete(transaction: &Transaction<'_>, key: &GroupKey) -> Result<bool> {
    let Some(group) = find(transaction, key)? else {
        return Ok(false);
    };
    delete_by_id(transaction, group.group_id)?;
    Ok(true)
}

/// Deletes a group and what it has pending.
pub(super) fn delete_by_id(transaction: &Transaction<'_>, group_id: i64) -> Result<()> {
    drop_pending(transaction, group_id)?;
    for statement in [
        "DELETE FROM stream_member WHERE group_id = ?1",
        "DELETE FROM stream_group WHERE group_id = ?1",
    ] {
        transaction.execute(statement, [group_id])?;
    }
    Ok(())
}

fn drop_pending(transaction: &Transaction<'_>, group_id: i64) -> Result<()> {
    for statement in [
        "DELETE FROM stream_lease WHERE group_id = ?1",
        "DELETE FROM stream_retry WHERE group_id = ?1",
    ] {
        transaction.execute(statement, [group_id])?;
    }
    Ok(())
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
