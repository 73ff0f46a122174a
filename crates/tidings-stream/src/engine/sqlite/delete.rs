//! Deleting a message; deleting a stream, which may hold more messages than one transaction should remove.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::schema::StreamRow;
use super::{clock, group, schema, trim};
use crate::{MessageId, Result, StreamName};

/// What the names of deleted streams begin with, and no name of a stream can: a control character.
const HIDDEN: &str = "\u{1}";

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
/// is none. Its messages are still there, out of reach.
pub(super) fn hide(transaction: &Transaction<'_>, stream: &StreamName) -> Result<Option<i64>> {
    let stream_id = transaction
        .prepare_cached(
            "UPDATE stream SET name = ?2 || stream_id WHERE name = ?1 RETURNING stream_id",
        )?
        .query_row([stream.as_str(), HIDDEN], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(stream_id) = stream_id else {
        return Ok(None);
    };
    let groups: Vec<i64> = transaction
        .prepare_cached("SELECT group_id FROM stream_group WHERE stream_id = ?1")?
        .query_map([stream_id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for group_id in groups {
        group::delete_by_id(transaction, group_id)?;
    }
    transaction.execute(
        "DELETE FROM stream_publish_key WHERE stream_id = ?1",
        [stream_id],
    )?;
    Ok(Some(stream_id))
}

/// The ids of streams out of sight whose messages have not all been removed.
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
    let removed = transaction
        .prepare_cached(
            "DELETE FROM stream_message WHERE key IN (
                 SELECT key FROM stream_message WHERE key BETWEEN ?1 AND ?2
                     AND EXISTS (SELECT 1 FROM stream
                         WHERE stream_id = ?4 AND name >= ?5 AND name < ?5 || ':')
                 LIMIT ?3)",
        )?
        .execute(params![
            schema::key(stream_id, 0),
            schema::key(stream_id, schema::MAX_NUMBER),
            trim::CHUNK,
            stream_id,
            HIDDEN
        ])?;
    if removed > 0 {
        return Ok(false);
    }
    transaction.execute(
        "DELETE FROM stream WHERE stream_id = ?1 AND name >= ?2 AND name < ?2 || ':'",
        params![stream_id, HIDDEN],
    )?;
    Ok(true)
}
