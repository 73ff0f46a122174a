//! Deliveries as they are shown, and one of them again.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params_from_iter};

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
    let (text, values) = list_statement(query);
    let mut statement = connection.prepare_cached(&text)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

/// The statement of a list, with its parameters. It has only the conditions that there are, so that each
/// combination finds its index.
fn list_statement(query: &DeliveryQuery) -> (String, Vec<i64>) {
    let mut conditions = vec!["true".to_owned()];
    let mut values = vec![limit(query.limit)];
    if let Some(state) = query.state {
        conditions.push(in_state(state));
    }
    let mut add = |condition: &str, value: i64| {
        values.push(value);
        conditions.push(format!("webhook_delivery.{condition} ?{}", values.len()));
    };
    if let Some(endpoint) = query.endpoint {
        add("endpoint =", endpoint.as_i64());
    }
    if let Some(before) = query.before {
        add("delivery <", before.as_i64());
    }
    let mut chosen = conditions.join(" AND ");
    if query.endpoint.is_some() && query.state.is_none() {
        // The deliveries of an endpoint are in order within each state. The newest of each state are
        // merged; otherwise all of them would be sorted.
        let of_state = |state: DeliveryState| {
            format!(
                "SELECT * FROM (SELECT delivery FROM webhook_delivery
                 WHERE {chosen} AND {} ORDER BY delivery DESC LIMIT ?1)",
                in_state(state)
            )
        };
        let newest = DeliveryState::ALL.map(of_state).join(" UNION ALL ");
        chosen = format!("delivery IN ({newest})");
    }
    let text = format!("{SELECT} WHERE {chosen} ORDER BY delivery DESC LIMIT ?1");
    (text, values)
}

/// The condition of a state, in the words of the indexes that are for some states only.
fn in_state(state: DeliveryState) -> String {
    let number = state.as_i16();
    let has_ended = match state {
        DeliveryState::Pending => "",
        DeliveryState::Delivered | DeliveryState::Failed | DeliveryState::Cancelled => {
            " AND webhook_delivery.state > 0"
        }
    };
    format!("webhook_delivery.state = {number}{has_ended}")
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
            "SELECT (SELECT count(*) FROM (
                 SELECT 1 FROM webhook_delivery WHERE state = 0 LIMIT ?1))
             + (SELECT count(*) FROM (SELECT 1 FROM webhook_deferred LIMIT ?1))",
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
    lanes::hasten(tx, endpoint, now)?;
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
        owner: crate::columns::owner(row.get(4)?)?,
        state: DeliveryState::from_i16(state).ok_or_else(unknown)?,
        attempts: row.get(6)?,
        next_attempt_at: optional_time(row.get(7)?)?,
        created_at: time(row.get(8)?)?,
        finished_at: optional_time(row.get(9)?)?,
        reason: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::schema;
    use super::*;

    /// A file with so many deliveries of each of two endpoints, in all states.
    fn with_deliveries(count: u32) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&schema::STEPS.concat()).unwrap();
        let fill = "
            WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1)
            INSERT INTO webhook_delivery (event, endpoint, state, created_at)
            SELECT x, endpoint, x % 4, 0 FROM n, (SELECT 1 AS endpoint UNION SELECT 2)";
        connection.execute(fill, [count]).unwrap();
        connection
    }

    /// Steps of SQLite's machine that a list takes.
    fn steps(connection: &Connection, query: &DeliveryQuery) -> i32 {
        let (text, values) = list_statement(query);
        let mut statement = connection.prepare(&text).unwrap();
        let mut rows = statement.query(params_from_iter(values)).unwrap();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        statement.get_status(StatementStatus::VmStep)
    }

    #[test]
    fn regression_a_list_costs_the_same_however_many_deliveries_there_are() {
        let (few, many) = (with_deliveries(100), with_deliveries(10_000));
        let all = DeliveryQuery::newest(10);
        let of_one = all.clone().to(EndpointId::from_i64(1));
        let mut queries = vec![all.clone(), of_one.clone()];
        for state in DeliveryState::ALL {
            queries.extend([all.clone().in_state(state), of_one.clone().in_state(state)]);
        }
        for query in queries {
            for query in [query.clone(), query.before(DeliveryId::from_i64(150))] {
                let (few, many) = (steps(&few, &query), steps(&many, &query));
                assert!(many < 2 * few, "{query:?}: {few} steps, with more {many}");
            }
        }
    }
}
