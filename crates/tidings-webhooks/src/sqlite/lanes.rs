//! Lanes: when an endpoint has something to do, who serves it, and what there is to do.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use tidings_notify::{Payload, UserId};

use super::endpoints;
use super::schema::{limit, micros, open_for, open_for_micros, optional_time, time};
use crate::store::{
    DueDelivery, LaneQuery, LaneWork, LeaseRequest, Leased, LeasedLane, NextDue, Released,
    SentEvent, StoredLane,
};
use crate::{DeliveryId, EndpointId, StoreError, WebhookEvent};

pub(super) fn advance_clock(tx: &Transaction<'_>, now: Timestamp) -> Result<Timestamp, StoreError> {
    let now = tx
        .prepare_cached(
            "INSERT INTO webhook_clock (one, now) VALUES (1, ?1)
             ON CONFLICT (one) DO UPDATE SET now = max(now, excluded.now) RETURNING now",
        )?
        .query_row([micros(now)], |row| row.get(0))?;
    time(now)
}

/// Notes that an endpoint has something to do at a time.
pub(super) fn add_work(
    tx: &Transaction<'_>,
    endpoint: EndpointId,
    due: Timestamp,
) -> Result<(), StoreError> {
    let endpoint = endpoint.as_i64();
    let known = tx
        .prepare_cached("SELECT next_due FROM webhook_lane WHERE endpoint = ?1")?
        .query_row([endpoint], |row| row.get::<_, i64>(0))
        .optional()?;
    match known {
        None => tx
            .prepare_cached(
                "INSERT INTO webhook_lane (endpoint, next_due, free_at) VALUES (?1, ?2, ?2)",
            )?
            .execute((endpoint, micros(due)))?,
        Some(next_due) if micros(due) < next_due => tx
            .prepare_cached(
                "UPDATE webhook_lane SET next_due = ?2,
                     free_at = iif(owner IS NULL, max(?2, blocked_until), free_at)
                 WHERE endpoint = ?1",
            )?
            .execute((endpoint, micros(due)))?,
        // It is known that something is due by then.
        Some(_) => 0,
    };
    Ok(())
}

/// Makes a lane due, if there is one, ends its block and closes its circuit, also those that its holder is about to
/// report.
pub(super) fn hasten(
    tx: &Transaction<'_>,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE webhook_lane SET
             next_due = min(next_due, ?2), blocked_until = 0, next_open_for = 0,
             was_unblocked = owner IS NOT NULL,
             free_at = iif(owner IS NULL, min(next_due, ?2), free_at)
         WHERE endpoint = ?1",
    )?
    .execute((endpoint.as_i64(), micros(now)))?;
    Ok(())
}

/// Ends all leases, and the lead: who had them is gone.
pub(super) fn free_all(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE webhook_lane SET owner = NULL, free_at = max(next_due, blocked_until)
         WHERE owner IS NOT NULL",
        [],
    )?;
    tx.execute("DELETE FROM webhook_leader", [])?;
    Ok(())
}

pub(super) fn next_free(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let next = connection
        .prepare_cached("SELECT min(free_at) FROM webhook_lane")?
        .query_row([], |row| row.get(0))?;
    optional_time(next)
}

pub(super) fn lease(tx: &Transaction<'_>, lease: &LeaseRequest) -> Result<Leased, StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE webhook_lane SET owner = ?1, free_at = ?3, was_unblocked = 0 WHERE endpoint IN (
             SELECT endpoint FROM webhook_lane WHERE free_at <= ?2 ORDER BY free_at LIMIT ?4)
         RETURNING endpoint, next_open_for",
    )?;
    let parameters = (
        &lease.instance,
        micros(lease.now),
        micros(lease.until),
        limit(lease.limit),
    );
    let mut rows = statement.query(parameters)?;
    let mut lanes = Vec::new();
    while let Some(row) = rows.next()? {
        lanes.push(LeasedLane {
            endpoint: EndpointId::from_i64(row.get(0)?),
            next_open_for: open_for(row.get(1)?),
        });
    }
    drop(rows);
    Ok(Leased {
        lanes,
        next_due: next_free(tx)?,
    })
}

/// How long after its block the circuit of a lane is forgotten that was not given back, in microseconds: it was probed
/// since.
const CIRCUIT_KEPT_FOR: i64 = 600_000_000;

pub(super) fn renew(
    tx: &Transaction<'_>,
    instance: &str,
    until: Timestamp,
) -> Result<Vec<(EndpointId, u64)>, StoreError> {
    tx.prepare_cached(
        "UPDATE webhook_lane SET free_at = ?2,
             next_open_for = iif(blocked_until < ?3, 0, next_open_for)
         WHERE owner = ?1",
    )?
    .execute((instance, micros(until), micros(until) - CIRCUIT_KEPT_FOR))?;
    let mut statement = tx.prepare_cached(
        "SELECT endpoint, coalesce((SELECT revision FROM webhook_endpoint
             WHERE webhook_endpoint.endpoint = webhook_lane.endpoint), 0)
         FROM webhook_lane WHERE owner = ?1",
    )?;
    let mut rows = statement.query([instance])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        let revision: i64 = row.get(1)?;
        held.push((EndpointId::from_i64(row.get(0)?), revision.cast_unsigned()));
    }
    Ok(held)
}

pub(super) fn release(
    tx: &Transaction<'_>,
    instance: &str,
    lanes: &[Released],
) -> Result<Option<Timestamp>, StoreError> {
    let mut earliest: Option<i64> = None;
    for lane in lanes {
        let endpoint = lane.endpoint.as_i64();
        let was_unblocked = tx
            .prepare_cached("SELECT 1 FROM webhook_lane WHERE endpoint = ?1 AND was_unblocked = 1")?
            .exists([endpoint])?;
        let (blocked_until, next_open_for) = if was_unblocked {
            (0, 0)
        } else {
            let blocked_until = lane.blocked_until.map_or(0, micros);
            (blocked_until, open_for_micros(lane.next_open_for))
        };
        let next_due = [
            next_delivery(tx, endpoint, None)?,
            next_replay(tx, endpoint)?,
        ]
        .into_iter()
        .flatten()
        .min();
        // A block is kept for what comes, also where nothing is left.
        let next_due = next_due.or((blocked_until > 0).then_some(blocked_until));
        let Some(next_due) = next_due else {
            tx.prepare_cached("DELETE FROM webhook_lane WHERE endpoint = ?1 AND owner = ?2")?
                .execute((endpoint, instance))?;
            continue;
        };
        let free_at = next_due.max(blocked_until);
        let released = tx
            .prepare_cached(
                "UPDATE webhook_lane
                 SET owner = NULL, next_due = ?3, blocked_until = ?4, free_at = ?5,
                     next_open_for = ?6
                 WHERE endpoint = ?1 AND owner = ?2",
            )?
            .execute((
                endpoint,
                instance,
                next_due,
                blocked_until,
                free_at,
                next_open_for,
            ))?;
        if released > 0 {
            earliest = Some(earliest.map_or(free_at, |it| it.min(free_at)));
        }
    }
    optional_time(earliest)
}

pub(super) fn work(connection: &Connection, query: &LaneQuery) -> Result<LaneWork, StoreError> {
    let endpoint = query.endpoint.as_i64();
    let mut work = LaneWork {
        endpoint: endpoints::find(connection, query.endpoint)?,
        due: Vec::new(),
        next_due: None,
        replay_due: optional_time(next_replay(connection, endpoint)?)?,
    };
    let held: HashSet<i64> = query.held.iter().map(|id| id.as_i64()).collect();
    let mut ids = connection.prepare_cached(
        "SELECT delivery FROM webhook_delivery
         WHERE endpoint = ?1 AND state = 0 AND due_at <= ?2 ORDER BY due_at, delivery LIMIT ?3",
    )?;
    let most = limit(held.len() + query.limit + 1);
    let mut rows = ids.query((endpoint, micros(query.now), most))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if held.contains(&id) {
            continue;
        }
        if work.due.len() >= query.limit || bytes > query.max_bytes {
            work.next_due = Some(query.now);
            return Ok(work);
        }
        let due = read(connection, id)?;
        bytes += due.event.as_ref().map_or(0, |it| it.payload.as_str().len());
        work.due.push(due);
    }
    work.next_due = optional_time(next_delivery(connection, endpoint, Some(query.now))?)?;
    Ok(work)
}

pub(super) fn stored(
    connection: &Connection,
    endpoints: &[EndpointId],
) -> Result<Vec<StoredLane>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT owner, nullif(blocked_until, 0), next_open_for, iif(owner IS NULL, NULL, free_at)
         FROM webhook_lane WHERE endpoint = ?1",
    )?;
    let mut found = Vec::new();
    for endpoint in endpoints {
        let mut rows = statement.query([endpoint.as_i64()])?;
        if let Some(row) = rows.next()? {
            found.push(StoredLane {
                endpoint: *endpoint,
                instance: row.get(0)?,
                leased_until: optional_time(row.get(3)?)?,
                blocked_until: optional_time(row.get(1)?)?,
                next_open_for: open_for(row.get(2)?),
            });
        }
    }
    Ok(found)
}

pub(super) fn next_due(
    connection: &Connection,
    endpoints: &[EndpointId],
) -> Result<Vec<NextDue>, StoreError> {
    // One statement for all of them, which are asked for several times a second.
    let mut statement = connection.prepare_cached(
        "SELECT coalesce((SELECT revision FROM webhook_endpoint WHERE endpoint = asked.value), 0),
             (SELECT min(due_at) FROM webhook_delivery WHERE endpoint = asked.value AND state = 0),
             (SELECT resume_at FROM webhook_replay WHERE endpoint = asked.value)
         FROM json_each(?1) AS asked ORDER BY asked.key",
    )?;
    let asked: Vec<_> = endpoints.iter().map(|id| id.as_i64()).collect();
    let asked = serde_json::to_string(&asked).map_err(StoreError::backend)?;
    let mut rows = statement.query([asked])?;
    let mut found = Vec::with_capacity(endpoints.len());
    while let Some(row) = rows.next()? {
        let revision: i64 = row.get(0)?;
        let due: [Option<i64>; 2] = [row.get(1)?, row.get(2)?];
        found.push(NextDue {
            revision: revision.cast_unsigned(),
            due: optional_time(due.into_iter().flatten().min())?,
        });
    }
    Ok(found)
}

/// When the next delivery of an endpoint is due, of those due after a time.
fn next_delivery(
    connection: &Connection,
    endpoint: i64,
    after: Option<Timestamp>,
) -> Result<Option<i64>, StoreError> {
    let next = connection
        .prepare_cached(
            "SELECT min(due_at) FROM webhook_delivery
             WHERE endpoint = ?1 AND state = 0 AND due_at > ?2",
        )?
        .query_row((endpoint, after.map_or(i64::MIN, micros)), |row| row.get(0))?;
    Ok(next)
}

fn next_replay(connection: &Connection, endpoint: i64) -> Result<Option<i64>, StoreError> {
    let next = connection
        .prepare_cached("SELECT resume_at FROM webhook_replay WHERE endpoint = ?1")?
        .query_row([endpoint], |row| row.get(0))
        .optional()?;
    Ok(next)
}

fn read(connection: &Connection, id: i64) -> Result<DueDelivery, StoreError> {
    let due = connection
        .prepare_cached(
            "SELECT attempts, tries, id, user, type, timestamp, payload, due_at
             FROM webhook_delivery LEFT JOIN webhook_event USING (event) WHERE delivery = ?1",
        )?
        .query_row([id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(7)?, event(row)))
        })?;
    let (attempts, tries, due_at, event) = due;
    Ok(DueDelivery {
        id: DeliveryId::from_i64(id),
        attempts,
        tries,
        due_at: time(due_at)?,
        event,
    })
}

pub(super) fn sent_event(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<SentEvent>, StoreError> {
    connection
        .prepare_cached(
            "SELECT endpoint, NULL, id, user, type, timestamp, payload
             FROM webhook_delivery JOIN webhook_event USING (event) WHERE delivery = ?1",
        )?
        .query_row([id.as_i64()], |row| {
            Ok((EndpointId::from_i64(row.get(0)?), event(row)))
        })
        .optional()?
        .map(|(endpoint, event)| {
            let event = event.map_err(StoreError::backend)?;
            Ok(SentEvent { endpoint, event })
        })
        .transpose()
}

/// Reads the event of a delivery, or says what is wrong with it.
fn event(row: &Row<'_>) -> Result<WebhookEvent, String> {
    let text = |column| -> Result<Option<String>, String> {
        match row.get_ref(column).map_err(|it| it.to_string())? {
            ValueRef::Null => Ok(None),
            value => value
                .as_str()
                .map(|text| Some(text.to_owned()))
                .map_err(|it| it.to_string()),
        }
    };
    let missing = || "the event is not stored any more".to_owned();
    let timestamp: i64 = row.get(5).map_err(|_| missing())?;
    Ok(WebhookEvent {
        id: text(2)?.ok_or_else(missing)?,
        user: text(3)?
            .map(UserId::new)
            .transpose()
            .map_err(|it| it.to_string())?,
        event_type: text(4)?.ok_or_else(missing)?,
        timestamp: Timestamp::from_microsecond(timestamp).map_err(|it| it.to_string())?,
        payload: Payload::parse(&text(6)?.ok_or_else(missing)?).map_err(|it| it.to_string())?,
    })
}
