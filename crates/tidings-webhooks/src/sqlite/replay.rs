//! Replays: a stretch of events to one endpoint, step by step.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::schema::{limit, micros, time};
use super::{events, lanes};
use crate::store::{NewReplay, ReplayEvent, ReplayPage, ReplayStep};
use crate::{EndpointId, StoreError};

pub(super) fn start(
    tx: &Transaction<'_>,
    replay: &NewReplay,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let endpoint = replay.endpoint.as_i64();
    let is_enabled = tx
        .prepare_cached(
            "SELECT 1 FROM webhook_endpoint
             WHERE endpoint = ?1 AND removed = 0 AND disabled_because IS NULL",
        )?
        .exists([endpoint])?;
    if !is_enabled {
        return Ok(false);
    }
    // Numbers rise with the time of acceptance, except where the wall clock was set back.
    let first: Option<i64> = tx
        .prepare_cached(
            "SELECT event FROM webhook_event WHERE accepted_at >= ?1
             ORDER BY accepted_at, event LIMIT 1",
        )?
        .query_row([micros(replay.since)], |row| row.get(0))
        .optional()?;
    let last: Option<i64> = tx
        .prepare_cached(
            "SELECT event FROM webhook_event WHERE accepted_at < ?1
             ORDER BY accepted_at DESC, event DESC LIMIT 1",
        )?
        .query_row([micros(replay.until)], |row| row.get(0))
        .optional()?;
    let (Some(first), Some(last)) = (first, last) else {
        // It replaces an earlier one all the same.
        stop(tx, replay.endpoint)?;
        return Ok(true);
    };
    tx.prepare_cached(
        "INSERT INTO webhook_replay (endpoint, position, last, per_second, resume_at)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (endpoint) DO UPDATE SET position = excluded.position, last = excluded.last,
             per_second = excluded.per_second, resume_at = excluded.resume_at",
    )?
    .execute((endpoint, first - 1, last, replay.per_second, micros(now)))?;
    lanes::add_work(tx, replay.endpoint, now)?;
    Ok(true)
}

pub(super) fn stop(tx: &Transaction<'_>, endpoint: EndpointId) -> Result<bool, StoreError> {
    let stopped = tx
        .prepare_cached("DELETE FROM webhook_replay WHERE endpoint = ?1")?
        .execute([endpoint.as_i64()])?;
    Ok(stopped > 0)
}

pub(super) fn page(
    connection: &Connection,
    endpoint: EndpointId,
    most: usize,
) -> Result<Option<ReplayPage>, StoreError> {
    let found: Option<(i64, i64, u32, i64, Option<String>)> = connection
        .prepare_cached(
            "SELECT position, last, per_second, resume_at, user
             FROM webhook_replay JOIN webhook_endpoint USING (endpoint) WHERE endpoint = ?1",
        )?
        .query_row([endpoint.as_i64()], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    let Some((from, last, per_second, due, user)) = found else {
        return Ok(None);
    };
    // Users have no index: it would cost every event a page, and replays are rare.
    let mut statement = connection.prepare_cached(
        "SELECT event, type, user FROM webhook_event
         WHERE event > ?1 AND event <= ?2 ORDER BY event LIMIT ?3",
    )?;
    let mut rows = statement.query((from, last, limit(SCANNED_AT_ONCE)))?;
    let mut page = ReplayPage {
        from,
        due: time(due)?,
        per_second,
        events: Vec::new(),
        to: from,
        more: false,
    };
    let mut scanned = 0;
    while let Some(row) = rows.next()? {
        scanned += 1;
        page.to = row.get(0)?;
        let is_owned = match &user {
            Some(user) => row.get::<_, Option<String>>(2)?.as_ref() == Some(user),
            None => true,
        };
        if is_owned {
            page.events.push(ReplayEvent {
                number: page.to,
                event_type: row.get(1)?,
            });
        }
        page.more = page.events.len() >= most || scanned == SCANNED_AT_ONCE;
        if page.events.len() >= most {
            break;
        }
    }
    Ok(Some(page))
}

/// Most events that one page looks at: a few milliseconds.
const SCANNED_AT_ONCE: usize = 5000;

pub(super) fn step(
    tx: &Transaction<'_>,
    step: &ReplayStep,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (endpoint, due) = (step.endpoint.as_i64(), micros(step.due));
    let moved = match step.cursor {
        Some((position, resume_at)) => tx
            .prepare_cached(
                "UPDATE webhook_replay SET position = ?3, resume_at = ?4
                 WHERE endpoint = ?1 AND position = ?2 AND resume_at = ?5",
            )?
            .execute((endpoint, step.from, position, micros(resume_at), due))?,
        None => tx
            .prepare_cached(
                "DELETE FROM webhook_replay WHERE endpoint = ?1 AND position = ?2 AND resume_at = ?3",
            )?
            .execute((endpoint, step.from, due))?,
    };
    if moved == 0 {
        return Ok(());
    }
    // Not of an event that was cleaned after the page with it had been read.
    let mut again = tx.prepare_cached(
        "INSERT INTO webhook_delivery (event, endpoint, state, due_at, created_at)
         SELECT event, ?2, 0, ?3, ?4 FROM webhook_event WHERE event = ?1
         ON CONFLICT (event, endpoint) DO UPDATE SET
             state = 0, tries = 0, due_at = excluded.due_at, finished_at = NULL, reason = NULL
         WHERE state >= 2",
    )?;
    for (event, due) in &step.events {
        if again.execute((event, endpoint, micros(*due), micros(at)))? > 0 {
            events::mark(tx, *event)?;
            lanes::add_work(tx, step.endpoint, *due)?;
        }
    }
    if let Some((_, resume_at)) = step.cursor {
        lanes::add_work(tx, step.endpoint, resume_at)?;
    }
    Ok(())
}
