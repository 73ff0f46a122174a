//! Reading a log, and how far it was delivered.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::schema::{clamp_seq, key, seq_of};
use super::state::{ReadMarks, State};
use crate::budget::Budget;
use crate::event::at_microsecond;
use crate::{
    ChangeMark, Changes, Epoch, Event, EventId, EventKey, EventType, Head, LogChange,
    MAX_PAGE_BYTES, Page, Payload, StoreError, UserId,
};

/// The columns that [`Events::event`] reads, in its order, of events `e` and their states `s`.
pub(super) const EVENT_COLUMNS: &str =
    "e.key, e.timestamp, e.type, e.payload, e.event_key, s.read_at, s.is_unread, s.archived_at";

/// Where the columns of the state begin.
pub(super) const STATE_COLUMNS: usize = 5;

/// Where events are found with their states.
const EVENTS: &str = "notify_event AS e LEFT JOIN notify_state AS s ON s.key = e.key";

/// The log of a user, as the file has it.
pub(super) struct Log {
    pub(super) id: i64,
    pub(super) head: Head,
    /// The number up to which events have been seen.
    pub(super) seen_seq: u64,
    /// How far the marks reach up to which all is read.
    pub(super) read_seq: u64,
}

pub(super) fn find_log(connection: &Connection, user: &UserId) -> Result<Option<Log>, StoreError> {
    let log = connection
        .prepare_cached(
            "SELECT id, seen_seq, read_seq,
                    epoch, first_seq, top_seq, delivered_seq, unread, unseen, revision
             FROM notify_log WHERE user = ?1",
        )?
        .query_row([user.as_str()], |row| {
            Ok(Log {
                id: row.get(0)?,
                seen_seq: row.get(1)?,
                read_seq: row.get(2)?,
                head: head_from(row, 3)?,
            })
        })
        .optional()?;
    Ok(log)
}

/// Reads the columns of a head, from this one on.
fn head_from(row: &Row<'_>, column: usize) -> rusqlite::Result<Head> {
    Ok(Head {
        epoch: epoch(row.get(column)?),
        first_seq: row.get(column + 1)?,
        top_seq: row.get(column + 2)?,
        delivered_seq: row.get(column + 3)?,
        unread: row.get(column + 4)?,
        unseen: row.get(column + 5)?,
        revision: row.get(column + 6)?,
    })
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
    let Some(log) = find_log(connection, user)? else {
        return Ok(Page::empty());
    };
    let mut page = Page {
        head: log.head,
        events: Vec::new(),
    };
    let top = log.head.top_seq;
    if after >= top {
        return Ok(page);
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM {EVENTS} WHERE e.key > ?1 AND e.key <= ?2 ORDER BY e.key LIMIT ?3"
    ))?;
    let mut events = Events::new(connection, user, &log)?;
    let mut rows = statement.query((
        key(log.id, clamp_seq(after))?,
        key(log.id, clamp_seq(top))?,
        i64::try_from(limit).unwrap_or(i64::MAX),
    ))?;
    let mut budget = Budget::new(MAX_PAGE_BYTES);
    while let Some(row) = rows.next()?
        && budget.admit(payload_bytes(row)?)
    {
        page.events.push(events.event(row)?);
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
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM {EVENTS} WHERE e.key = ?1"
    ))?;
    let mut events = Events::new(connection, user, &log)?;
    let mut rows = statement.query([key(log.id, clamp_seq(id.seq))?])?;
    rows.next()?.map(|row| events.event(row)).transpose()
}

/// Makes events of one log from rows of [`EVENT_COLUMNS`].
pub(super) struct Events<'a> {
    user: &'a UserId,
    epoch: Epoch,
    marks: ReadMarks<'a>,
}

impl<'a> Events<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        user: &'a UserId,
        log: &Log,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            user,
            epoch: log.head.epoch,
            marks: ReadMarks::new(connection, log)?,
        })
    }

    pub(super) fn event(&mut self, row: &Row<'_>) -> Result<Event, StoreError> {
        let seq = seq_of(row.get(0)?);
        let state = State::from_row(row, STATE_COLUMNS)?;
        let event_type = row.get_ref(2)?.as_str().map_err(StoreError::backend)?;
        let event_key = row
            .get_ref(4)?
            .as_str_or_null()
            .map_err(StoreError::backend)?;
        Ok(Event {
            id: EventId::new(self.epoch, seq),
            user: self.user.clone(),
            event_type: EventType::new(event_type).map_err(StoreError::backend)?,
            payload: Payload::from_stored(row.get(3)?).map_err(StoreError::backend)?,
            timestamp: at_microsecond(row.get(1)?),
            read_at: self.marks.read_at(seq, &state)?.map(at_microsecond),
            archived_at: state.archived_at.map(at_microsecond),
            key: event_key
                .map(EventKey::new)
                .transpose()
                .map_err(StoreError::backend)?,
        })
    }
}

/// The length of the payload in a row of [`EVENT_COLUMNS`], looked up without copying it.
pub(super) fn payload_bytes(row: &Row<'_>) -> Result<usize, StoreError> {
    Ok(row.get_ref(3)?.as_str().map_err(StoreError::backend)?.len())
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

/// The number of the newest change. Numbers are visible in their order, because a file has one
/// writer at a time.
fn newest_change(connection: &Connection) -> Result<u64, StoreError> {
    let newest: Option<u64> = connection
        .prepare_cached("SELECT max(changed) FROM notify_log")?
        .query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}

pub(super) fn mark(connection: &Connection) -> Result<ChangeMark, StoreError> {
    Ok(ChangeMark::from_u64(newest_change(connection)?))
}

pub(super) fn changes(
    connection: &Connection,
    after: Option<u64>,
    limit: usize,
) -> Result<Changes, StoreError> {
    let newest = newest_change(connection)?;
    let mut changes = Changes {
        mark: ChangeMark::from_u64(newest),
        logs: Vec::new(),
        more: false,
        rewound: false,
    };
    let Some(after) = after.filter(|after| *after <= newest) else {
        // The file was put back to an older copy.
        changes.rewound = true;
        return Ok(changes);
    };
    let mut statement = connection.prepare_cached(
        "SELECT user, changed, epoch, first_seq, top_seq, delivered_seq, unread, unseen, revision
         FROM notify_log WHERE changed > ?1 ORDER BY changed LIMIT ?2",
    )?;
    let mut rows = statement.query((after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut last = newest;
    while let Some(row) = rows.next()? {
        let user = row.get_ref(0)?.as_str().map_err(StoreError::backend)?;
        changes.logs.push(LogChange {
            user: UserId::new(user).map_err(StoreError::backend)?,
            head: head_from(row, 2)?,
        });
        last = row.get(1)?;
    }
    changes.mark = ChangeMark::from_u64(last);
    changes.more = last < newest;
    Ok(changes)
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
