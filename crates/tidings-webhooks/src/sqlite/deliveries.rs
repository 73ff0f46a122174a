//! Deliveries as they are shown, and one of them again.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction};

use super::endpoints;
use super::lanes;
use super::schema::{limit, micros, optional_time, time};
use crate::health::MAX_COUNTED;
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EndpointId, StoreError,
};

const SELECT: &str = "
    SELECT delivery, webhook_event.id, webhook_event.type, webhook_delivery.endpoint,
        webhook_endpoint.user, state, attempts, due_at, webhook_delivery.created_at, finished_at,
        reason
    FROM webhook_delivery
    LEFT JOIN webhook_event USING (event)
    LEFT JOIN webhook_endpoint ON webhook_endpoint.endpoint = webhook_delivery.endpoint";

pub(super) fn find(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE delivery = ?1"))?
        .query_row([id.as_i64()], |row| Ok(from_row(row)))
        .optional()?
        .transpose()
}

pub(super) fn list(
    connection: &Connection,
    query: &DeliveryQuery,
) -> Result<Vec<Delivery>, StoreError> {
    let most = limit(query.limit);
    // Only the conditions that there are, so that each combination finds its index.
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<&dyn ToSql> = vec![&most];
    let endpoint = query.endpoint.map(EndpointId::as_i64);
    let state = query.state.map(DeliveryState::as_i16);
    let before = query.before.map(DeliveryId::as_i64);
    if let Some(endpoint) = &endpoint {
        values.push(endpoint);
        conditions.push(format!("webhook_delivery.endpoint = ?{}", values.len()));
    }
    if let Some(state) = &state {
        values.push(state);
        conditions.push(format!("state = ?{}", values.len()));
    }
    if let Some(before) = &before {
        values.push(before);
        conditions.push(format!("delivery < ?{}", values.len()));
    }
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT} WHERE {} ORDER BY delivery DESC LIMIT ?1",
        conditions.join(" AND ")
    ))?;
    let mut rows = statement.query(values.as_slice())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

pub(super) fn attempts(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
    let is_known = connection
        .prepare_cached("SELECT 1 FROM webhook_delivery WHERE delivery = ?1")?
        .exists([id.as_i64()])?;
    if !is_known {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT number, started_at, duration, status, error, response FROM webhook_attempt
         WHERE delivery = ?1 ORDER BY number",
    )?;
    let mut rows = statement.query([id.as_i64()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let microseconds: i64 = row.get(2)?;
        found.push(AttemptRecord {
            number: row.get(0)?,
            started_at: time(row.get(1)?)?,
            duration: std::time::Duration::from_micros(microseconds.unsigned_abs()),
            status: row.get(3)?,
            error: row.get(4)?,
            response: row.get(5)?,
        });
    }
    Ok(Some(found))
}

pub(super) fn count_pending(connection: &Connection) -> Result<u64, StoreError> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM webhook_delivery WHERE state = 0 LIMIT ?1)",
        )?
        .query_row([MAX_COUNTED.cast_signed()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

pub(super) fn retry(
    tx: &Transaction<'_>,
    id: DeliveryId,
    now: Timestamp,
) -> Result<Option<EndpointId>, StoreError> {
    let endpoint: Option<i64> = tx
        .prepare_cached(
            "UPDATE webhook_delivery
             SET state = 0, tries = 0, due_at = ?2, finished_at = NULL, reason = NULL
             WHERE delivery = ?1 AND EXISTS (SELECT 1 FROM webhook_endpoint
                 WHERE webhook_endpoint.endpoint = webhook_delivery.endpoint
                     AND removed = 0 AND disabled_because IS NULL)
             RETURNING endpoint",
        )?
        .query_row((id.as_i64(), micros(now)), |row| row.get(0))
        .optional()?;
    let Some(endpoint) = endpoint.map(EndpointId::from_i64) else {
        return Ok(None);
    };
    lanes::add_work(tx, endpoint, now)?;
    Ok(Some(endpoint))
}

fn from_row(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let state: i16 = row.get(5)?;
    let unknown = || StoreError::backend(format!("there is no state {state} of a delivery"));
    Ok(Delivery {
        id: DeliveryId::from_i64(row.get(0)?),
        // Rows are shown even where what they refer to was lost.
        event_id: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
        event_type: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
        endpoint_id: EndpointId::from_i64(row.get(3)?),
        owner: endpoints::owner(row.get(4)?)?,
        state: DeliveryState::from_i16(state).ok_or_else(unknown)?,
        attempts: row.get(6)?,
        next_attempt_at: optional_time(row.get(7)?)?,
        created_at: time(row.get(8)?)?,
        finished_at: optional_time(row.get(9)?)?,
        reason: row.get(10)?,
    })
}
