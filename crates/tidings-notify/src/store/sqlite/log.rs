//! Reading a log, and how far it was delivered.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::schema::{clamp_seq, key, seq_of};
use crate::budget::Budget;
use crate::{
    ChangeMark, Changes, Epoch, Event, EventId, EventType, Head, LogChange, MAX_PAGE_BYTES, Page,
    Payload, StoreError, UserId,
};

/// The columns that [`event`] reads, in its order.
pub(super) const EVENT_COLUMNS: &str = "key, timestamp, read_at, type, payload";

/// The log of a user, as the file has it.
pub(super) struct Log {
    pub(super) id: i64,
    pub(super) head: Head,
}

pub(super) fn find_log(connection: &Connection, user: &UserId) -> Result<Option<Log>, StoreError> {
    let log = connection
        .prepare_cached(
            "SELECT id, epoch, first_seq, top_seq, delivered_seq, unread, read_revision
             FROM notify_log WHERE user = ?1",
        )?
        .query_row([user.as_str()], |row| {
            Ok(Log {
                id: row.get(0)?,
                head: Head {
                    epoch: epoch(row.get(1)?),
                    first_seq: row.get(2)?,
                    top_seq: row.get(3)?,
                    delivered_seq: row.get(4)?,
                    unread: row.get(5)?,
                    read_revision: row.get(6)?,
                },
            })
        })
        .optional()?;
    Ok(log)
}

/// SQLite's integers have a sign and epochs have none: they share the same 64 bits.
pub(super) fn epoch(stored: i64) -> Epoch {
    Epoch::from_u64(stored.cast_unsigned())
}

pub(super) fn head(connection: &Connection, user: &UserId) -> Result<Head, StoreError> {
    Ok(find_log(connection, user)?.map_or(Head::EMPTY, |log| log.head))
}

pub(super) fn read(
    connection: &Connection,
    user: &UserId,
    after: u64,
    limit: usize,
) -> Result<Page, StoreError> {
    let Some(Log { id, head }) = find_log(connection, user)? else {
        return Ok(Page::empty());
    };
    let mut page = Page {
        epoch: head.epoch,
        first_seq: head.first_seq,
        top_seq: head.top_seq,
        events: Vec::new(),
    };
    if after >= head.top_seq {
        return Ok(page);
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, timestamp, read_at, type, payload FROM notify_event
         WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut rows = statement.query((
        key(id, clamp_seq(after))?,
        key(id, clamp_seq(head.top_seq))?,
        i64::try_from(limit).unwrap_or(i64::MAX),
    ))?;
    let mut budget = Budget::new(MAX_PAGE_BYTES);
    while let Some(row) = rows.next()?
        && budget.admit(payload_bytes(row)?)
    {
        page.events.push(event(row, user, head.epoch)?);
    }
    Ok(page)
}

pub(super) fn find(
    connection: &Connection,
    user: &UserId,
    id: EventId,
) -> Result<Option<Event>, StoreError> {
    let Some(log) = find_log(connection, user)? else {
        return Ok(None);
    };
    if log.head.epoch != id.epoch || !(log.head.first_seq..=log.head.top_seq).contains(&id.seq) {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, timestamp, read_at, type, payload FROM notify_event WHERE key = ?1",
    )?;
    let mut rows = statement.query([key(log.id, clamp_seq(id.seq))?])?;
    rows.next()?
        .map(|row| event(row, user, id.epoch))
        .transpose()
}

/// Reads a row of [`EVENT_COLUMNS`].
pub(super) fn event(row: &Row<'_>, user: &UserId, epoch: Epoch) -> Result<Event, StoreError> {
    Ok(Event {
        id: EventId::new(epoch, seq_of(row.get(0)?)),
        user: user.clone(),
        event_type: EventType::new(row.get_ref(3)?.as_str().map_err(StoreError::backend)?)
            .map_err(StoreError::backend)?,
        payload: Payload::from_stored(row.get(4)?).map_err(StoreError::backend)?,
        timestamp: time(row.get(1)?)?,
        read_at: row.get::<_, Option<i64>>(2)?.map(time).transpose()?,
    })
}

/// The length of the payload in a row of [`EVENT_COLUMNS`], looked up without copying it.
pub(super) fn payload_bytes(row: &Row<'_>) -> Result<usize, StoreError> {
    Ok(row.get_ref(4)?.as_str().map_err(StoreError::backend)?.len())
}

fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(StoreError::backend)
}

/// Bisects: `latest_at` never falls along the log, and first exceeds a time at the first event
/// stamped so.
pub(super) fn cursor_before(
    connection: &Connection,
    user: &UserId,
    wanted: Timestamp,
) -> Result<EventId, StoreError> {
    let Some(log) = find_log(connection, user)? else {
        return Ok(EventId::ORIGIN);
    };
    let wanted = wanted.as_microsecond();
    let mut statement =
        connection.prepare_cached("SELECT latest_at FROM notify_event WHERE key = ?1")?;
    let (mut low, mut high) = (log.head.first_seq, log.head.top_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let latest: i64 =
            statement.query_row([key(log.id, clamp_seq(middle))?], |row| row.get(0))?;
        if latest < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(EventId::new(log.head.epoch, low - 1))
}

pub(super) fn mark(connection: &Connection) -> Result<ChangeMark, StoreError> {
    let newest: Option<u64> = connection
        .prepare_cached("SELECT max(changed) FROM notify_log")?
        .query_row([], |row| row.get(0))?;
    Ok(ChangeMark::from_u64(newest.unwrap_or(0)))
}

pub(super) fn changes(
    connection: &Connection,
    after: ChangeMark,
    limit: usize,
) -> Result<Changes, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT user, epoch, top_seq, unread, read_revision, changed FROM notify_log
         WHERE changed > ?1 ORDER BY changed LIMIT ?2",
    )?;
    let after_stored = i64::try_from(after.as_u64()).unwrap_or(i64::MAX);
    let mut rows = statement.query((after_stored, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut logs = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let user = row.get_ref(0)?.as_str().map_err(StoreError::backend)?;
        logs.push(LogChange {
            user: UserId::stored(user).map_err(StoreError::backend)?,
            epoch: epoch(row.get(1)?),
            top_seq: row.get(2)?,
            unread: row.get(3)?,
            read_revision: row.get(4)?,
        });
        last = Some(ChangeMark::from_u64(row.get(5)?));
    }
    Ok(Changes {
        more: logs.len() >= limit,
        mark: match last {
            Some(mark) => mark,
            // Behind `after` when the file was put back to an older copy.
            None => mark(connection)?,
        },
        logs,
    })
}

pub(super) fn mark_delivered(
    tx: &Transaction<'_>,
    marks: &[(UserId, EventId)],
) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE notify_log SET delivered_seq = ?3
         WHERE user = ?1 AND epoch = ?2 AND delivered_seq < ?3 AND ?3 <= top_seq",
    )?;
    for (user, id) in marks {
        let seq = i64::try_from(id.seq).unwrap_or(i64::MAX);
        statement.execute((user.as_str(), id.epoch.as_u64().cast_signed(), seq))?;
    }
    Ok(())
}
