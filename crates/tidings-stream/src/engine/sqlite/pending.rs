//! What groups have begun and not finished.

use rusqlite::{Connection, params};

use super::lease::Lease;
use super::{clock, group};
use crate::engine::{self, GroupKey, time};
use crate::{Error, MessageId, PendingMessage, Result};

/// Reads a page of the pending messages of a group, in the order of their ids.
pub(super) fn page(
    connection: &Connection,
    key: &GroupKey,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<PendingMessage>> {
    let group = group::find(connection, key)?.ok_or(Error::UnknownGroup)?;
    let now = clock::now();
    let (after, limit) = engine::page(after, max);
    let mut pending: Vec<PendingMessage> = connection
        .prepare_cached(
            "SELECT number, attempts, iif(claim IS NULL, NULL, ifnull(consumer, '')), since, due, last_error
             FROM stream_retry WHERE group_id = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )?
        .query_map(params![group.group_id, after, limit], |row| {
            Ok(PendingMessage {
                id: MessageId::from_u64(row.get::<_, i64>(0)?.cast_unsigned()),
                attempts: row.get(1)?,
                consumer: row.get(2)?,
                age: time::duration(now.saturating_sub(row.get(3)?)),
                due_in: time::duration(row.get::<_, i64>(4)?.saturating_sub(now)),
                last_error: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    // Leases do not overlap, and each has an open number, though perhaps not after this one.
    let which = "group_id = ?1 AND hi > ?2 ORDER BY lo LIMIT ?3";
    let parameters = [group.group_id, after, limit.saturating_add(1)];
    let mut room = max;
    for lease in Lease::select(connection, which, parameters)? {
        let numbers = lease.messages.open();
        let numbers = numbers.filter(|number| *number > after.cast_unsigned());
        for number in numbers.take(room) {
            room -= 1;
            pending.push(PendingMessage {
                id: MessageId::from_u64(number),
                attempts: 1,
                consumer: Some(lease.consumer.clone()),
                age: time::duration(now.saturating_sub(lease.since)),
                due_in: time::duration(lease.deadline.saturating_sub(now)),
                last_error: None,
            });
        }
    }
    pending.sort_by_key(|message| message.id);
    pending.truncate(max);
    Ok(pending)
}

/// Whether a claim of the group would find something. A group that does not exist is to be claimed
/// from, and learns it.
pub(super) fn is_ready(connection: &Connection, key: &GroupKey) -> Result<bool> {
    let Some(group) = group::find(connection, key)? else {
        return Ok(true);
    };
    if group.cursor < group.head {
        return Ok(true);
    }
    let is_due = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM stream_retry WHERE group_id = ?1 AND due <= ?2)
                 OR EXISTS (SELECT 1 FROM stream_lease WHERE group_id = ?1 AND deadline <= ?2)",
        )?
        .query_row([group.group_id, clock::now()], |row| row.get(0))?;
    Ok(is_due)
}
