//! The state of events in the inbox: what is kept of it, and how it is counted.
//!
//! Only what differs from a new event has a row. "All read up to here" is one row for any number of
//! events (`notify_read_mark`), and the log remembers how far these reach (`read_seq`). An event is
//!
//! - *read* if its row has a time, or if a mark reaches it and its row does not say that it is unread
//!   all the same;
//! - *archived* if its row has a time for that. An archived event that is unread says so in its row,
//!   because later marks do not concern it.
//!
//! So the unread events of a stretch are counted by rows, and not by events.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::log::Log;
use super::schema::{clamp_seq, key};
use crate::StoreError;

/// What the row of an event says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    pub(super) read_at: Option<i64>,
    pub(super) is_unread: bool,
    pub(super) archived_at: Option<i64>,
}

impl State {
    /// Reads the columns `read_at, is_unread, archived_at` from this one on; an outer join leaves
    /// them empty.
    pub(super) fn from_row(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            read_at: row.get(column)?,
            is_unread: row.get::<_, Option<bool>>(column + 1)?.unwrap_or(false),
            archived_at: row.get(column + 2)?,
        })
    }

    pub(super) fn of(connection: &Connection, log: &Log, seq: u64) -> Result<Self, StoreError> {
        let state = connection
            .prepare_cached(
                "SELECT read_at, is_unread, archived_at FROM notify_state WHERE key = ?1",
            )?
            .query_row([key(log.id, clamp_seq(seq))?], |row| Self::from_row(row, 0))
            .optional()?;
        Ok(state.unwrap_or_default())
    }

    pub(super) fn is_read(&self, log: &Log, seq: u64) -> bool {
        self.read_at.is_some() || (!self.is_unread && seq <= log.read_seq)
    }
}

/// Counts the unread events of the inbox with numbers above `above`, up to `up_to`.
pub(super) fn unread_between(
    connection: &Connection,
    log: &Log,
    above: u64,
    up_to: u64,
) -> Result<u64, StoreError> {
    let last = up_to.min(log.head.top_seq);
    let floor = above.max(log.head.first_seq - 1);
    let unmarked = floor.max(log.read_seq).min(last);
    let key = |seq| key(log.id, clamp_seq(seq));
    let settled: u64 = connection
        .prepare_cached(
            "SELECT count(*) FROM notify_state WHERE key > ?1 AND key <= ?2
             AND (read_at IS NOT NULL OR archived_at IS NOT NULL)",
        )?
        .query_row((key(unmarked)?, key(last)?), |row| row.get(0))?;
    let again: u64 = if floor < unmarked {
        connection
            .prepare_cached(
                "SELECT count(*) FROM notify_state INDEXED BY notify_state_unread
                 WHERE key > ?1 AND key <= ?2 AND is_unread = 1 AND archived_at IS NULL",
            )?
            .query_row((key(floor)?, key(unmarked)?), |row| row.get(0))?
    } else {
        0
    };
    Ok(last - unmarked - settled + again)
}

/// Counts the unread events of the inbox with numbers above `above`, up to `up_to`. Above `above` there are `all`: the
/// shorter part of the log is counted, what is passed or what stays.
pub(super) fn unread_passed(
    connection: &Connection,
    log: &Log,
    above: u64,
    up_to: u64,
    all: u64,
) -> Result<u64, StoreError> {
    let top = log.head.top_seq;
    if up_to.saturating_sub(above.max(log.read_seq)) <= top - up_to {
        return unread_between(connection, log, above, up_to);
    }
    let stays = unread_between(connection, log, up_to, top)?;
    Ok(all.saturating_sub(stays))
}

/// When events were read that have no row of their own: by the first mark that reached them.
pub(super) struct ReadMarks<'a> {
    statement: CachedStatement<'a>,
    log: i64,
    read_seq: u64,
    /// The last mark that was looked up, and the number of the one before it.
    last: Option<(u64, u64, i64)>,
}

impl<'a> ReadMarks<'a> {
    pub(super) fn new(connection: &'a Connection, log: &Log) -> Result<Self, StoreError> {
        Ok(Self {
            statement: connection.prepare_cached(
                "SELECT (SELECT coalesce(max(up_to), 0) FROM notify_read_mark
                         WHERE log = ?1 AND up_to < ?2), up_to, at
                 FROM notify_read_mark WHERE log = ?1 AND up_to >= ?2 ORDER BY up_to LIMIT 1",
            )?,
            log: log.id,
            read_seq: log.read_seq,
            last: None,
        })
    }

    /// The time when an event in this state was read, if it was.
    pub(super) fn read_at(&mut self, seq: u64, state: &State) -> Result<Option<i64>, StoreError> {
        if state.read_at.is_some() || state.is_unread || seq > self.read_seq {
            return Ok(state.read_at);
        }
        let is_reached =
            |(before, up_to, _): &(u64, u64, i64)| (*before + 1..=*up_to).contains(&seq);
        if !self.last.as_ref().is_some_and(is_reached) {
            let mark = self.statement.query_row((self.log, clamp_seq(seq)), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            });
            self.last = mark.optional()?;
        }
        Ok(self.last.map(|(_, _, at)| at))
    }
}
