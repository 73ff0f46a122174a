//! Removing old events, a little at a time.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::SqliteStore;
use super::read_state::count_off;
use super::schema::key;
use crate::StoreError;

/// Logs looked at in one query.
const LOGS_PER_STEP: i64 = 4096;

/// Events removed in one job of the writer: some milliseconds, behind which others wait.
const EVENTS_PER_STEP: i64 = 512;

pub(super) async fn run(store: &SqliteStore, cutoff: Timestamp) -> Result<u64, StoreError> {
    let cutoff = cutoff.as_microsecond();
    let mut removed = 0;
    let mut after = 0;
    loop {
        let last = after + LOGS_PER_STEP;
        let (logs, newest) = store
            .query(move |connection| aged_logs(connection, after, last, cutoff))
            .await?;
        for log in logs {
            loop {
                let step = store.write_relaxed(move |tx| trim(tx, log, cutoff)).await?;
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

/// The logs numbered above `after` up to `last` whose oldest event is old enough, and the greatest
/// number of any log.
fn aged_logs(
    connection: &Connection,
    after: i64,
    last: i64,
    cutoff: i64,
) -> Result<(Vec<i64>, i64), StoreError> {
    let newest: Option<i64> = connection
        .prepare_cached("SELECT max(id) FROM notify_log")?
        .query_row([], |row| row.get(0))?;
    // SQLite keeps the order of a cross join: a few logs, and one event looked up for each.
    let logs = connection
        .prepare_cached(
            "SELECT log.id FROM notify_log AS log
             CROSS JOIN notify_event AS event ON event.key = (log.id << 32 | log.first_seq)
             WHERE log.id > ?1 AND log.id <= ?2 AND event.stored_at < ?3",
        )?
        .query_map((after, last, cutoff), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok((logs, newest.unwrap_or(0)))
}

/// Removes the old events among the oldest few of one log, and tells how many they were.
fn trim(tx: &Transaction<'_>, log: i64, cutoff: i64) -> Result<u64, StoreError> {
    let bounds: Option<(i64, i64)> = tx
        .prepare_cached("SELECT first_seq, top_seq FROM notify_log WHERE id = ?1")?
        .query_row([log], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((first, top)) = bounds else {
        return Ok(0);
    };
    let end = top.min(first + EVENTS_PER_STEP - 1);
    if end < first {
        return Ok(0);
    }
    // `stored_at` never falls along the log, so the old events are its beginning.
    let (last, unread): (Option<i64>, u64) = tx
        .prepare_cached(
            "SELECT max(key), count(*) - count(read_at) FROM notify_event
             WHERE key BETWEEN ?1 AND ?2 AND stored_at < ?3",
        )?
        .query_row((key(log, first)?, key(log, end)?, cutoff), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let Some(last) = last else {
        return Ok(0);
    };
    let removed = tx
        .prepare_cached("DELETE FROM notify_event WHERE key BETWEEN ?1 AND ?2")?
        .execute((key(log, first)?, last))?;
    tx.prepare_cached("UPDATE notify_log SET first_seq = ?2 WHERE id = ?1")?
        .execute((log, last - key(log, 0)? + 1))?;
    if unread > 0 {
        count_off(tx, log, unread)?;
    }
    Ok(removed as u64)
}
