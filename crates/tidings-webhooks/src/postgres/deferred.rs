//! Events whose deliveries are made later.

use jiff::Timestamp;
use tidings_notify::UserId;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, Parameter};

use super::events::{self, Columns};
use super::schema::{column, limit};
use crate::store::{AcceptedEvent, Addressed, DeferredEvent};
use crate::{StoreError, WebhookEvent};

pub(super) async fn defer(
    connections: &Connections,
    accepted: &[AcceptedEvent],
) -> Result<(), StoreError> {
    let mut ids = Vec::with_capacity(accepted.len());
    let mut users = Vec::with_capacity(accepted.len());
    let mut newest_endpoints = Vec::with_capacity(accepted.len());
    let mut events = Vec::with_capacity(accepted.len());
    for AcceptedEvent {
        event,
        newest_endpoint,
    } in accepted
    {
        ids.push(&*event.id);
        users.push(event.user.as_ref().map(UserId::as_str));
        newest_endpoints.push(newest_endpoint.cast_signed());
        events.push(serde_json::to_string(event).map_err(StoreError::backend)?);
    }
    let parameters = [
        (&ids as _, Type::TEXT_ARRAY),
        (&users as _, Type::TEXT_ARRAY),
        (&newest_endpoints as _, Type::INT8_ARRAY),
        (&events as _, Type::TEXT_ARRAY),
    ];
    let defer = "SELECT tidings_webhook_defer($1, $2, $3, $4)";
    connections.row(defer, &parameters).await?;
    Ok(())
}

/// The first ones, as many as fit into the bounds.
const FIRST: &str = "
    SELECT number, newest_endpoint, event
    FROM (
        SELECT *, sum(octet_length(event)) OVER in_order AS bytes,
            row_number() OVER in_order AS place
        FROM (SELECT * FROM tidings_webhook_deferred ORDER BY number LIMIT $1) AS first
        WINDOW in_order AS (ORDER BY number)
    ) AS first
    WHERE place = 1 OR bytes <= $2 ORDER BY number";

pub(super) async fn first(
    connections: &Connections,
    most: usize,
    max_bytes: usize,
) -> Result<Vec<DeferredEvent>, StoreError> {
    let (most, max_bytes) = (limit(most), limit(max_bytes));
    let parameters = [(&most as _, Type::INT8), (&max_bytes as _, Type::INT8)];
    let rows = connections.query(FIRST, &parameters).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<DeferredEvent, StoreError> {
    let newest_endpoint: i64 = row.try_get(1).map_err(column)?;
    let accepted = |event: WebhookEvent| AcceptedEvent {
        event,
        newest_endpoint: newest_endpoint.unsigned_abs(),
    };
    let json: &str = row.try_get(2).map_err(column)?;
    Ok(DeferredEvent {
        number: row.try_get(0).map_err(column)?,
        event: serde_json::from_str(json)
            .map(accepted)
            .map_err(|error| error.to_string()),
    })
}

pub(super) async fn add(
    connections: &Connections,
    step: Vec<(i64, Option<Addressed>)>,
    at: Timestamp,
) -> Result<Option<usize>, StoreError> {
    const ADD: &str = "SELECT tidings_webhook_add_deferred_counted(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let numbers: Vec<i64> = step.iter().map(|(number, _)| *number).collect();
    let addressed: Vec<Addressed> = step.into_iter().filter_map(|(_, event)| event).collect();
    let columns = Columns::new(&addressed, at);
    let mut parameters: Vec<Parameter<'_>> = vec![(&numbers, Type::INT8_ARRAY)];
    parameters.extend(columns.parameters());
    let row = connections.row(ADD, &parameters).await?;
    let added: Option<i64> = row.try_get(0).map_err(column)?;
    Ok(added.map(events::number))
}
