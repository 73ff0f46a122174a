//! Deleting a message; deleting a stream or a group, which may hold more rows than one transaction should remove. They go
//! out of sight at once, under the name of a stream that no caller can give, and in chunks after that.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::schema::StreamRow;
use super::{clock, group, schema, trim};
use crate::engine::GroupKey;
use crate::{MessageId, Result, StreamName};

/// What the names of deleted streams begin with, and no name of a stream can: a control character.
const HIDDEN: &str = "\u{1}";

/// Which rows are of groups that were not deleted.
pub(super) const OF_SHOWN_GROUPS: &str = "group_id IN (
    SELECT group_id FROM stream_group JOIN stream AS s USING (stream_id) WHERE s.name >= ' ')";

/// Deletes a message, and returns whether it was there. If it waits for an attempt or for its ordering key, the
/// next claim of the group finds it gone.
pub(super) fn delete_message(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    id: MessageId,
) -> Result<bool> {
    let row = StreamRow::find(transaction, stream)?;
    let (Some(row), Ok(number)) = (row, i64::try_from(id.as_u64())) else {
        return Ok(false);
    };
    if !(row.tail..=row.head).contains(&number) {
        return Ok(false);
    }
    transaction.execute(
        "UPDATE stream_retry SET due = ?3, since = ?3, delay = 0
         WHERE number = ?2 AND claim IS NULL
             AND group_id IN (SELECT group_id FROM stream_group WHERE stream_id = ?1)",
        [row.stream_id, number, clock::now()],
    )?;
    let deleted = transaction.execute(
        "DELETE FROM stream_message WHERE key = ?1",
        [schema::key(row.stream_id, number)],
    )?;
    Ok(deleted > 0)
}

/// Takes a stream out of sight, with its groups and publish keys, and returns its id; `None` if there
/// is none. Its rows are still there, out of reach.
pub(super) fn hide(transaction: &Transaction<'_>, stream: &StreamName) -> Result<Option<i64>> {
    let stream_id = transaction
        .prepare_cached(
            "UPDATE stream SET name = ?2 || stream_id WHERE name = ?1 RETURNING stream_id",
        )?
        .query_row([stream.as_str(), HIDDEN], |row| row.get(0))
        .optional()?;
    Ok(stream_id)
}

/// Takes a group out of sight, and returns the id of the stream that it is in from now on; `None` if there is none.
pub(super) fn hide_group_by_key(
    transaction: &Transaction<'_>,
    key: &GroupKey,
) -> Result<Option<i64>> {
    let group = group::find(transaction, key)?;
    let hide = |group: group::GroupRow| hide_group(transaction, group.group_id);
    group.map(hide).transpose()
}

/// Takes a group out of sight, into a stream of its own, whose id it returns.
pub(super) fn hide_group(transaction: &Transaction<'_>, group_id: i64) -> Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO stream (stream_id, name)
             SELECT id, ?1 || id FROM (SELECT ifnull(max(stream_id), 0) + 1 AS id FROM stream)",
        )?
        .execute([HIDDEN])?;
    let stream_id = transaction.last_insert_rowid();
    transaction
        .prepare_cached("UPDATE stream_group SET stream_id = ?2 WHERE group_id = ?1")?
        .execute([group_id, stream_id])?;
    Ok(stream_id)
}

/// The ids of streams out of sight that have not been removed.
pub(super) fn hidden(connection: &Connection) -> Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT stream_id FROM stream WHERE name >= ?1 AND name < ?1 || ':' ORDER BY name",
    )?;
    let ids = statement.query_map([HIDDEN], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Removes a chunk of a stream out of sight, and at last the stream. Returns whether that is done.
///
/// Several may do this at a time, and the id of a stream that is gone is given to the next one: each
/// step looks whether the stream is still the one out of sight.
pub(super) fn remove_chunk(transaction: &Transaction<'_>, stream_id: i64) -> Result<bool> {
    const OF_GROUPS: &str = "group_id IN (SELECT group_id FROM stream_group WHERE stream_id = ?1)";
    let is_hidden = transaction
        .prepare_cached(
            "SELECT 1 FROM stream WHERE stream_id = ?1 AND name >= ?2 AND name < ?2 || ':'",
        )?
        .exists(params![stream_id, HIDDEN])?;
    if !is_hidden {
        return Ok(true);
    }
    let messages = transaction
        .prepare_cached(
            "DELETE FROM stream_message WHERE key IN (
                 SELECT key FROM stream_message WHERE key BETWEEN ?1 AND ?2 LIMIT ?3)",
        )?
        .execute([
            schema::key(stream_id, 0),
            schema::key(stream_id, schema::MAX_NUMBER),
            trim::CHUNK,
        ])?;
    if messages > 0 {
        return Ok(false);
    }
    for (table, key, rows) in [
        ("stream_publish_key", "stream_id, key", "stream_id = ?1"),
        ("stream_retry", "group_id, number", OF_GROUPS),
        ("stream_lease", "group_id, claim", OF_GROUPS),
        ("stream_member", "group_id, consumer", OF_GROUPS),
        ("stream_group", "group_id", "stream_id = ?1"),
    ] {
        let delete = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {rows} LIMIT ?2)"
        );
        let mut delete = transaction.prepare_cached(&delete)?;
        if delete.execute([stream_id, trim::CHUNK])? > 0 {
            return Ok(false);
        }
    }
    transaction.execute("DELETE FROM stream WHERE stream_id = ?1", [stream_id])?;
    Ok(true)
}
