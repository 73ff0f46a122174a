//! Deliveries as they are shown, and one of them again.

use std::time::Duration;

use jiff::Timestamp;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, Parameter};

use super::schema::{column, limit, micros, optional_time, time};
use super::statements::Statements;
use crate::health::MAX_COUNTED;
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EndpointId, StoreError,
};

/// The rows are chosen before they are joined, so that no more are joined than are shown.
fn select(chosen: &str) -> String {
    format!(
        "SELECT delivery, event.id, event.type, chosen.endpoint, stored.user_id, state, attempts,
             due_at, chosen.created_at, finished_at, reason
         FROM ({chosen}) AS chosen
         LEFT JOIN tidings_webhook_event AS event USING (event)
         LEFT JOIN tidings_webhook_endpoint AS stored USING (endpoint)
         ORDER BY delivery DESC"
    )
}

pub(super) async fn find(
    statements: &impl Statements,
    id: DeliveryId,
) -> Result<Option<Delivery>, StoreError> {
    let statement = select("SELECT * FROM tidings_webhook_delivery WHERE delivery = $1");
    let rows = statements
        .query(&statement, &[(&id.as_i64(), Type::INT8)])
        .await?;
    rows.first().map(from_row).transpose()
}

pub(super) async fn list(
    connections: &Connections,
    query: &DeliveryQuery,
) -> Result<Vec<Delivery>, StoreError> {
    let most = limit(query.limit);
    let endpoint = query.endpoint.map(EndpointId::as_i64);
    let state = query.state.map(DeliveryState::as_i16);
    let before = query.before.map(DeliveryId::as_i64);
    // Only the conditions that there are, so that each combination finds its index.
    let mut conditions = vec!["true".to_owned()];
    let mut parameters: Vec<Parameter<'_>> = vec![(&most, Type::INT8)];
    if let Some(endpoint) = &endpoint {
        parameters.push((endpoint, Type::INT8));
        conditions.push(format!("endpoint = ${}", parameters.len()));
    }
    if let Some(state) = &state {
        parameters.push((state, Type::INT2));
        conditions.push(format!("state = ${}", parameters.len()));
    }
    if let Some(before) = &before {
        parameters.push((before, Type::INT8));
        conditions.push(format!("delivery < ${}", parameters.len()));
    }
    let mut chosen = conditions.join(" AND ");
    if endpoint.is_some() && state.is_none() {
        // The deliveries of an endpoint are in order within each state. The newest of each state are
        // merged; otherwise all of them would be sorted.
        let of_state = |state: DeliveryState| {
            format!(
                "(SELECT delivery FROM tidings_webhook_delivery
                 WHERE {chosen} AND state = {} ORDER BY delivery DESC LIMIT $1)",
                state.as_i16()
            )
        };
        let newest = DeliveryState::ALL.map(of_state).join(" UNION ALL ");
        chosen = format!("delivery IN ({newest})");
    }
    let statement = select(&format!(
        "SELECT * FROM tidings_webhook_delivery WHERE {chosen} ORDER BY delivery DESC LIMIT $1"
    ));
    let rows = connections.query(&statement, &parameters).await?;
    rows.iter().map(from_row).collect()
}

pub(super) async fn retry(
    statements: &impl Statements,
    id: DeliveryId,
    now: Timestamp,
) -> Result<Option<EndpointId>, StoreError> {
    let parameters = [
        (&id.as_i64() as _, Type::INT8),
        (&micros(now) as _, Type::INT8),
    ];
    let row = statements
        .row("SELECT tidings_webhook_retry($1, $2)", &parameters)
        .await?;
    let endpoint: Option<i64> = row.try_get(0).map_err(column)?;
    Ok(endpoint.map(EndpointId::from_i64))
}

pub(super) async fn attempts(
    connections: &Connections,
    id: DeliveryId,
) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
    const ATTEMPTS: &str = "
        SELECT number, started_at, duration, status, error, response
        FROM tidings_webhook_delivery LEFT JOIN tidings_webhook_attempt USING (delivery)
        WHERE delivery = $1 ORDER BY number";
    let rows = connections
        .query(ATTEMPTS, &[(&id.as_i64(), Type::INT8)])
        .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        // A delivery without an attempt has one row without one.
        let Some(number) = row.try_get::<_, Option<i32>>(0).map_err(column)? else {
            continue;
        };
        let microseconds: i64 = row.try_get(2).map_err(column)?;
        let status: Option<i32> = row.try_get(3).map_err(column)?;
        found.push(AttemptRecord {
            number: number.unsigned_abs(),
            started_at: time(row.try_get(1).map_err(column)?)?,
            duration: Duration::from_micros(microseconds.unsigned_abs()),
            status: status.and_then(|status| u16::try_from(status).ok()),
            error: row.try_get(4).map_err(column)?,
            response: row.try_get(5).map_err(column)?,
        });
    }
    Ok(Some(found))
}

/// How many deliveries wait, of one endpoint or of all.
pub(super) async fn count_pending(
    connections: &Connections,
    endpoint: Option<EndpointId>,
) -> Result<u64, StoreError> {
    let most = MAX_COUNTED.cast_signed();
    let mut parameters: Vec<Parameter<'_>> = vec![(&most, Type::INT8)];
    let endpoint = endpoint.map(EndpointId::as_i64);
    let (condition, deferred) = match &endpoint {
        Some(endpoint) => {
            parameters.push((endpoint, Type::INT8));
            ("AND endpoint = $2", "0")
        }
        None => (
            "",
            "(SELECT count(*) FROM (SELECT 1 FROM tidings_webhook_deferred LIMIT $1) AS deferred)",
        ),
    };
    let statement = format!(
        "SELECT count(*) + {deferred} FROM (SELECT 1 FROM tidings_webhook_delivery
             WHERE state = 0 {condition} LIMIT $1) AS waiting"
    );
    let row = connections.row(&statement, &parameters).await?;
    Ok(row.try_get::<_, i64>(0).map_err(column)?.unsigned_abs())
}

fn from_row(row: &Row) -> Result<Delivery, StoreError> {
    let state: i16 = row.try_get(5).map_err(column)?;
    let attempts: i32 = row.try_get(6).map_err(column)?;
    let unknown = || StoreError::backend(format!("there is no state {state} of a delivery"));
    // Rows are shown even where what they refer to was lost.
    let text = |index| -> Result<String, StoreError> {
        let text: Option<String> = row.try_get(index).map_err(column)?;
        Ok(text.unwrap_or_default())
    };
    Ok(Delivery {
        id: DeliveryId::from_i64(row.try_get(0).map_err(column)?),
        event_id: text(1)?,
        event_type: text(2)?,
        endpoint_id: EndpointId::from_i64(row.try_get(3).map_err(column)?),
        owner: crate::columns::owner(row.try_get(4).map_err(column)?)?,
        state: DeliveryState::from_i16(state).ok_or_else(unknown)?,
        attempts: attempts.unsigned_abs(),
        next_attempt_at: optional_time(row.try_get(7).map_err(column)?)?,
        created_at: time(row.try_get(8).map_err(column)?)?,
        finished_at: optional_time(row.try_get(9).map_err(column)?)?,
        reason: row.try_get(10).map_err(column)?,
    })
}
