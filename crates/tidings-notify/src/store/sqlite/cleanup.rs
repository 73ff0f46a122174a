//! Removing old events, a little at a time.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use tidings_sqlite::Handle;

use super::archived;
use super::change::save_counts;
use super::log::{Log, find_log};
use super::schema::{clamp_seq, key, seq_of};
use super::state::unread_between;
use crate::store::retention::Retention;
use crate::{StoreError, UserId};

/// Logs looked at in one query.
const LOGS_PER_STEP: i64 = 4096;

/// Events removed in one job of the writer: some milliseconds, behind which others wait.
const EVENTS_PER_STEP: i64 = 512;

pub(super) async fn run(
    handle: &Handle,
    retention: Retention,
    cutoff: Timestamp,
) -> Result<u64, StoreError> {
    let to_go = ToGo::new(retention, cutoff);
    let mut removed = 0;
    let mut after = 0;
    loop {
        let last = after + LOGS_PER_STEP;
        let (logs, newest) = handle
            .read(move |connection| to_go.logs(connection, after, last))
            .await?;
        for user in logs {
            loop {
                let user = user.clone();
                let step = handle
                    .write_relaxed(move |tx| to_go.trim(tx, &user))
                    .await?;
                removed += step;
                if step < EVENTS_PER_STEP.unsigned_abs() {
                    break;
                }
            }
        }
        if last >= newest {
            return Ok(removed);
        }
        after = last;
    }
}

/// Which events are to go.
#[derive(Clone, Copy)]
pub(super) struct ToGo {
    /// Those that were stored before this time.
    cutoff: i64,
    /// Those that a log has beyond these.
    max: i64,
    keeps_unread: bool,
}

impl ToGo {
    pub(super) fn new(retention: Retention, cutoff: Timestamp) -> Self {
        let max = retention.max_events.map(i64::try_from);
        Self {
            cutoff: cutoff.as_microsecond(),
            max: max.and_then(Result::ok).unwrap_or(i64::MAX),
            keeps_unread: retention.keeps_unread,
        }
    }

    /// The users of the logs numbered above `after` up to `last` whose oldest event is to go, and the
    /// greatest number of any log.
    fn logs(
        self,
        connection: &Connection,
        after: i64,
        last: i64,
    ) -> Result<(Vec<UserId>, i64), StoreError> {
        let newest: Option<i64> = connection
            .prepare_cached("SELECT max(id) FROM notify_log")?
            .query_row([], |row| row.get(0))?;
        // SQLite keeps the order of a cross join: a few logs, and one event looked up for each.
        let mut statement = connection.prepare_cached(
            "SELECT log.user FROM notify_log AS log
             CROSS JOIN notify_event AS event ON event.key = (log.id << 32 | log.first_seq)
             LEFT JOIN notify_state AS state ON state.key = event.key
             WHERE log.id > ?1 AND log.id <= ?2
                 AND (event.stored_at < ?3 OR log.top_seq - log.first_seq >= ?4)
                 AND (NOT ?5 OR state.archived_at IS NOT NULL OR state.read_at IS NOT NULL
                     OR (log.first_seq <= log.read_seq AND state.is_unread IS NOT 1))",
        )?;
        let parameters = (after, last, self.cutoff, self.max, self.keeps_unread);
        let mut rows = statement.query(parameters)?;
        let mut users = Vec::new();
        while let Some(row) = rows.next()? {
            let user = row.get_ref(0)?.as_str().map_err(StoreError::backend)?;
            users.push(UserId::new(user).map_err(StoreError::backend)?);
        }
        Ok((users, newest.unwrap_or(0)))
    }

    /// Removes what is to go of the oldest few events of one log, and returns how many there were.
    pub(super) fn trim(self, tx: &Transaction<'_>, user: &UserId) -> Result<u64, StoreError> {
        let Some(log) = find_log(tx, user)? else {
            return Ok(0);
        };
        let (first, top) = (clamp_seq(log.head.first_seq), clamp_seq(log.head.top_seq));
        let end = top.min(first + EVENTS_PER_STEP - 1);
        if end < first {
            return Ok(0);
        }
        // `stored_at` never falls along the log, so the old events are its beginning.
        let aged: Option<i64> = tx
            .prepare_cached(
                "SELECT max(key) FROM notify_event WHERE key BETWEEN ?1 AND ?2 AND stored_at < ?3",
            )?
            .query_row(
                (key(log.id, first)?, key(log.id, end)?, self.cutoff),
                |row| row.get(0),
            )?;
        let aged = aged.map_or(0, |key| clamp_seq(seq_of(key)));
        let last = aged.max(end.min(top.saturating_sub(self.max)));
        let unread = if self.keeps_unread {
            first_unread(tx, &log, first, last)?
        } else {
            None
        };
        let last = unread.map_or(last, |unread| unread - 1);
        if last < first {
            return Ok(0);
        }
        remove(tx, log, last.unsigned_abs())
    }
}

/// The number of the first event from `first` to `last` that is unread in the inbox.
fn first_unread(
    tx: &Transaction<'_>,
    log: &Log,
    first: i64,
    last: i64,
) -> Result<Option<i64>, StoreError> {
    if last < first {
        return Ok(None);
    }
    let key = |seq| key(log.id, seq);
    let unread: Option<i64> = tx
        .prepare_cached(
            "SELECT min(event.key) FROM notify_event AS event
             LEFT JOIN notify_state AS state ON state.key = event.key
             WHERE event.key BETWEEN ?1 AND ?2
                 AND state.archived_at IS NULL AND state.read_at IS NULL
                 AND (event.key > ?3 OR state.is_unread = 1)",
        )?
        .query_row(
            (key(first)?, key(last)?, key(clamp_seq(log.read_seq))?),
            |row| row.get(0),
        )?;
    Ok(unread.map(|key| clamp_seq(seq_of(key))))
}

/// Removes the events up to this number, with their states.
fn remove(tx: &Transaction<'_>, mut log: Log, last: u64) -> Result<u64, StoreError> {
    let before = (log.head.unread, log.head.unseen);
    // What leaves is counted: it has a bound, and what stays has none.
    let below = log.head.first_seq - 1;
    let unread = unread_between(tx, &log, below, last)?;
    let unseen = unread_between(tx, &log, below.max(log.seen_seq), last)?;
    log.head.unread = log.head.unread.saturating_sub(unread);
    log.head.unseen = log.head.unseen.saturating_sub(unseen);
    let keys = (
        key(log.id, clamp_seq(log.head.first_seq))?,
        key(log.id, clamp_seq(last))?,
    );
    tx.prepare_cached(
        "DELETE FROM notify_key WHERE (log, event_key, seq) IN (
             SELECT ?3, event_key, key & 4294967295 FROM notify_event
             WHERE key BETWEEN ?1 AND ?2 AND event_key IS NOT NULL)",
    )?
    .execute((keys.0, keys.1, log.id))?;
    let removed = tx
        .prepare_cached("DELETE FROM notify_event WHERE key BETWEEN ?1 AND ?2")?
        .execute(keys)?;
    tx.prepare_cached("DELETE FROM notify_state WHERE key BETWEEN ?1 AND ?2")?
        .execute(keys)?;
    archived::trim(tx, keys.0, keys.1)?;
    tx.prepare_cached("DELETE FROM notify_read_mark WHERE log = ?1 AND up_to <= ?2")?
        .execute((log.id, last))?;
    tx.prepare_cached("UPDATE notify_log SET first_seq = ?2 WHERE id = ?1")?
        .execute((log.id, last + 1))?;
    if before != (log.head.unread, log.head.unseen) {
        log.head.revision += 1;
        save_counts(tx, &log)?;
    }
    Ok(removed as u64)
}
