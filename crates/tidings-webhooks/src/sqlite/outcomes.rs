//! What became of attempts, and the health of endpoints that follows from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::schema::{duration_micros, limit, micros, optional_time};
use super::{lanes, replay};
use crate::health::{MAX_COUNTED, ReplayProgress, StoredHealth};
use crate::store::{AfterAttempt, Outcome};
use crate::tally::Tally;
use crate::{AttemptRecord, DeliveryState, EndpointId, StoreError};

pub(super) fn record(
    tx: &Transaction<'_>,
    outcomes: &[Outcome],
    now: Timestamp,
    at: Timestamp,
) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError> {
    if were_recorded(tx, outcomes)? {
        let endpoints = crate::tally::by_endpoint(outcomes).into_keys();
        return endpoints
            .map(|endpoint| Ok((endpoint, failing_since(tx, endpoint)?)))
            .collect();
    }
    let mut due: BTreeMap<EndpointId, Timestamp> = BTreeMap::new();
    for outcome in outcomes {
        let is_known = change(tx, outcome, at)?;
        if let (true, Some(attempt)) = (is_known, &outcome.attempt) {
            insert_attempt(tx, outcome.delivery.as_i64(), attempt)?;
        }
        if let AfterAttempt::Retry(at) = &outcome.next {
            let earliest = due.entry(outcome.endpoint).or_insert(*at);
            *earliest = (*earliest).min(*at);
        }
    }
    for (endpoint, due) in due {
        lanes::add_work(tx, endpoint, due)?;
    }
    crate::tally::by_endpoint(outcomes)
        .into_iter()
        .map(|(endpoint, tally)| Ok((endpoint, note(tx, endpoint, &tally, now, at)?)))
        .collect()
}

/// Whether an earlier call has recorded these outcomes: then it has recorded the first attempt of a delivery that exists.
fn were_recorded(tx: &Transaction<'_>, outcomes: &[Outcome]) -> Result<bool, StoreError> {
    let mut find = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM webhook_attempt
             WHERE delivery = ?1 AND started_at = ?2 AND duration = ?3)
         FROM webhook_delivery WHERE delivery = ?1",
    )?;
    for outcome in outcomes {
        let Some(attempt) = &outcome.attempt else {
            continue;
        };
        let started_at = micros(attempt.started_at);
        let duration = duration_micros(attempt.duration);
        let found = find
            .query_row((outcome.delivery.as_i64(), started_at, duration), |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(is_recorded) = found {
            return Ok(is_recorded);
        }
    }
    Ok(false)
}

/// Changes a delivery that is pending, if it was not begun again since it was taken. What arrived has arrived, whatever its
/// state is by now. Returns whether it exists.
fn change(tx: &Transaction<'_>, outcome: &Outcome, at: Timestamp) -> Result<bool, StoreError> {
    let id = outcome.delivery.as_i64();
    let number = outcome.attempt.as_ref().map_or(0, |attempt| attempt.number);
    let was_due_at = micros(outcome.was_due_at);
    let changed = match &outcome.next {
        AfterAttempt::Retry(due) => tx
            .prepare_cached(
                "UPDATE webhook_delivery
                 SET attempts = max(attempts, ?2), tries = tries + (?2 > 0), due_at = ?3,
                     reason = ?5
                 WHERE delivery = ?1 AND state = 0 AND due_at = ?4",
            )?
            .execute((
                id,
                number,
                micros(*due),
                was_due_at,
                &outcome.waits_because,
            ))?,
        AfterAttempt::Finish { state, reason } => tx
            .prepare_cached(
                "UPDATE webhook_delivery
                 SET attempts = max(attempts, ?2), tries = tries + (?2 > 0), due_at = NULL,
                     state = ?3, finished_at = ?4, reason = ?5
                 WHERE delivery = ?1 AND ((state = 0 AND due_at = ?6) OR (?3 = ?7 AND state <> ?7))",
            )?
            .execute((
                id,
                number,
                state.as_i16(),
                micros(at),
                reason,
                was_due_at,
                DeliveryState::Delivered.as_i16(),
            ))?,
    };
    if changed > 0 {
        return Ok(true);
    }
    let counted = tx
        .prepare_cached(
            "UPDATE webhook_delivery SET attempts = max(attempts, ?2) WHERE delivery = ?1",
        )?
        .execute((id, number))?;
    Ok(counted > 0)
}

fn insert_attempt(
    tx: &Transaction<'_>,
    delivery: i64,
    attempt: &AttemptRecord,
) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO webhook_attempt
             (delivery, number, started_at, duration, status, error, response)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (delivery, number) DO NOTHING",
    )?;
    let mut insert = |number: u32| {
        insert.execute((
            delivery,
            number,
            micros(attempt.started_at),
            duration_micros(attempt.duration),
            attempt.status,
            &attempt.error,
            &attempt.response,
        ))
    };
    if insert(attempt.number)? == 0 {
        // Another instance made an attempt of that number: this one comes after it.
        let next = tx
            .prepare_cached("SELECT max(number) + 1 FROM webhook_attempt WHERE delivery = ?1")?
            .query_row([delivery], |row| row.get(0))?;
        insert(next)?;
        tx.prepare_cached(
            "UPDATE webhook_delivery SET attempts = max(attempts, ?2) WHERE delivery = ?1",
        )?
        .execute((delivery, next))?;
    }
    Ok(())
}

/// Adds to the health of an endpoint. Returns since when it has been failing.
fn note(
    tx: &Transaction<'_>,
    endpoint: EndpointId,
    tally: &Tally,
    now: Timestamp,
    at: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let at = micros(at);
    let success_at = (tally.succeeded > 0).then_some(at);
    let failure_at = (tally.failed > 0).then_some(at);
    let parameters = (
        endpoint.as_i64(),
        success_at,
        failure_at,
        tally.ends_with_failure,
        micros(now),
        at / MICROSECONDS_PER_HOUR,
        tally.succeeded,
        tally.failed,
    );
    // By two statements: for one with `RETURNING`, SQLite makes a table each time.
    let updated = tx
        .prepare_cached(
            "UPDATE webhook_health SET
                 last_success_at = coalesce(?2, last_success_at),
                 last_failure_at = coalesce(?3, last_failure_at),
                 failing_since = iif(?4,
                     iif(?7 = 0, coalesce(failing_since, ?5), ?5), NULL),
                 succeeded_before = iif(hour = ?6, succeeded_before, succeeded),
                 failed_before = iif(hour = ?6, failed_before, failed),
                 succeeded = iif(hour = ?6, succeeded, 0) + ?7,
                 failed = iif(hour = ?6, failed, 0) + ?8,
                 hour = ?6
             WHERE endpoint = ?1",
        )?
        .execute(parameters)?;
    if updated == 0 {
        tx.prepare_cached(
            "INSERT INTO webhook_health VALUES (?1, ?2, ?3, iif(?4, ?5, NULL), ?6, ?7, ?8, 0, 0)",
        )?
        .execute(parameters)?;
    }
    if !tally.ends_with_failure {
        return Ok(None);
    }
    failing_since(tx, endpoint)
}

fn failing_since(
    tx: &Transaction<'_>,
    endpoint: EndpointId,
) -> Result<Option<Timestamp>, StoreError> {
    let since = tx
        .prepare_cached("SELECT failing_since FROM webhook_health WHERE endpoint = ?1")?
        .query_row([endpoint.as_i64()], |row| row.get(0))
        .optional()?;
    optional_time(since.flatten())
}

const MICROSECONDS_PER_HOUR: i64 = 3_600_000_000;

pub(super) fn health(connection: &Connection, id: EndpointId) -> Result<StoredHealth, StoreError> {
    let pending: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM webhook_delivery
                 WHERE endpoint = ?1 AND state = 0 LIMIT ?2)",
        )?
        .query_row((id.as_i64(), MAX_COUNTED.cast_signed()), |row| row.get(0))?;
    let mut health = StoredHealth {
        pending: pending.unsigned_abs(),
        ..StoredHealth::default()
    };
    let row = connection
        .prepare_cached(
            "SELECT last_success_at, last_failure_at, failing_since,
                    succeeded + succeeded_before, failed + failed_before
             FROM webhook_health WHERE endpoint = ?1",
        )?
        .query_row([id.as_i64()], |row| {
            let times: [Option<i64>; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok((times, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?))
        })
        .optional()?;
    if let Some(([success, failure, failing], succeeded, failed)) = row {
        health.last_success_at = optional_time(success)?;
        health.last_failure_at = optional_time(failure)?;
        health.failing_since = optional_time(failing)?;
        health.succeeded = succeeded.unsigned_abs();
        health.failed = failed.unsigned_abs();
    }
    health.replay = connection
        .prepare_cached(
            "SELECT position, last, per_second FROM webhook_replay WHERE endpoint = ?1",
        )?
        .query_row([id.as_i64()], |row| {
            Ok(ReplayProgress::new(row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(health)
}

pub(super) fn cancel(
    tx: &Transaction<'_>,
    endpoint: EndpointId,
    because: &str,
    at: Timestamp,
    most: usize,
) -> Result<usize, StoreError> {
    let is_enabled = tx
        .prepare_cached(
            "SELECT 1 FROM webhook_endpoint
             WHERE endpoint = ?1 AND removed = 0 AND disabled_because IS NULL",
        )?
        .exists([endpoint.as_i64()])?;
    if is_enabled {
        return Ok(0);
    }
    replay::stop(tx, endpoint)?;
    let cancelled = tx
        .prepare_cached(
            "UPDATE webhook_delivery
             SET state = ?2, due_at = NULL, finished_at = ?3, reason = ?4
             WHERE delivery IN (SELECT delivery FROM webhook_delivery
                 WHERE endpoint = ?1 AND state = 0 ORDER BY due_at, delivery LIMIT ?5)",
        )?
        .execute((
            endpoint.as_i64(),
            DeliveryState::Cancelled.as_i16(),
            micros(at),
            because,
            limit(most),
        ))?;
    Ok(cancelled)
}
