//! Consumer groups.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::engine::GroupKey;
use crate::{Error, MessageId, StartFrom};

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
pub(super) fn find(
    transaction: &Transaction<'_>,
    key: &GroupKey,
) -> Result<Option<GroupRow>, Error> {
    let row = transaction
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
pub(super) fn open(
    transaction: &Transaction<'_>,
    key: &GroupKey,
    start: StartFrom,
) -> Result<(), Error> {
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
    let cursor = match start {
        StartFrom::Latest => head,
        StartFrom::Earliest => tail - 1,
        StartFrom::After(id) if id.as_u64() > head.cast_unsigned() => {
            return Err(Error::StartAhead {
                start: id,
                newest: MessageId::from_u64(head.cast_unsigned()),
            });
        }
        StartFrom::After(id) => id.as_u64().cast_signed().max(tail - 1),
    };
    transaction
        .prepare_cached("INSERT INTO stream_group (stream_id, name, cursor) VALUES (?1, ?2, ?3)")?
        .execute(params![stream_id, key.group.as_str(), cursor])?;
    Ok(())
}

/// Deletes a group and what it has pending.
pub(super) fn delete(transaction: &Transaction<'_>, key: &GroupKey) -> Result<bool, Error> {
    let Some(group) = find(transaction, key)? else {
        return Ok(false);
    };
    for statement in [
        "DELETE FROM stream_lease WHERE group_id = ?1",
        "DELETE FROM stream_retry WHERE group_id = ?1",
        "DELETE FROM stream_group WHERE group_id = ?1",
    ] {
        transaction.execute(statement, [group.group_id])?;
    }
    Ok(true)
}

/// Adds to a group's count of messages that were trimmed too early for it.
pub(super) fn count_lost(
    transaction: &Transaction<'_>,
    group_id: i64,
    messages: i64,
) -> Result<(), Error> {
    if messages > 0 {
        transaction
            .prepare_cached(
                "UPDATE stream_group SET lost_to_trim = lost_to_trim + ?2 WHERE group_id = ?1",
            )?
            .execute(params![group_id, messages])?;
    }
    Ok(())
}
