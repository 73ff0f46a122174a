//! Lanes: when an endpoint has something to do, who serves it, and what there is to do.

use jiff::Timestamp;
use tidings_notify::{Payload, UserId};
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::endpoints;
use super::schema::{column, limit, micros, open_for, open_for_micros, optional_time, time};
use crate::store::{
    DueDelivery, LaneQuery, LaneWork, LeaseRequest, Leased, LeasedLane, NextDue, Released,
    SentEvent, StoredLane,
};
use crate::{DeliveryId, EndpointId, StoreError, WebhookEvent};

pub(super) async fn lease(
    connections: &Connections,
    lease: &LeaseRequest,
) -> Result<Leased, StoreError> {
    // Most of the time nothing is due, and looking writes nothing.
    let next_due = next_free(connections).await?;
    if next_due.is_none_or(|due| due > lease.now) {
        return Ok(Leased {
            lanes: Vec::new(),
            next_due,
        });
    }
    let rows = connections
        .query(
            "SELECT endpoint, next_open_for FROM tidings_webhook_take($1, $2, $3, $4)",
            &[
                (&lease.instance, Type::TEXT),
                (&micros(lease.now), Type::INT8),
                (&micros(lease.until), Type::INT8),
                (&limit(lease.limit), Type::INT8),
            ],
        )
        .await?;
    let leased = |row: &Row| {
        Ok(LeasedLane {
            endpoint: EndpointId::from_i64(row.try_get(0).map_err(column)?),
            next_open_for: open_for(row.try_get(1).map_err(column)?),
        })
    };
    let lanes: Result<_, StoreError> = rows.iter().map(leased).collect();
    Ok(Leased {
        lanes: lanes?,
        next_due: next_free(connections).await?,
    })
}

async fn next_free(connections: &Connections) -> Result<Option<Timestamp>, StoreError> {
    let row = connections
        .row("SELECT min(free_at) FROM tidings_webhook_lane", &[])
        .await?;
    optional_time(row.try_get(0).map_err(column)?)
}

pub(super) async fn renew(
    connections: &Connections,
    instance: &str,
    until: Timestamp,
) -> Result<Vec<(EndpointId, u64)>, StoreError> {
    let rows = connections
        .query(
            "SELECT endpoint, revision FROM tidings_webhook_renew($1, $2)",
            &[(&instance, Type::TEXT), (&micros(until), Type::INT8)],
        )
        .await?;
    let held = |row: &Row| {
        let revision: i64 = row.try_get(1).map_err(column)?;
        let endpoint = EndpointId::from_i64(row.try_get(0).map_err(column)?);
        Ok((endpoint, revision.cast_unsigned()))
    };
    rows.iter().map(held).collect()
}

pub(super) async fn release(
    connections: &Connections,
    instance: &str,
    lanes: &[Released],
) -> Result<Option<Timestamp>, StoreError> {
    let endpoints: Vec<_> = lanes.iter().map(|lane| lane.endpoint.as_i64()).collect();
    let blocked: Vec<_> = lanes
        .iter()
        .map(|lane| lane.blocked_until.map_or(0, micros))
        .collect();
    let open_for: Vec<_> = lanes
        .iter()
        .map(|lane| open_for_micros(lane.next_open_for))
        .collect();
    let row = connections
        .row(
            "SELECT tidings_webhook_release($1, $2, $3, $4)",
            &[
                (&instance, Type::TEXT),
                (&endpoints, Type::INT8_ARRAY),
                (&blocked, Type::INT8_ARRAY),
                (&open_for, Type::INT8_ARRAY),
            ],
        )
        .await?;
    optional_time(row.try_get(0).map_err(column)?)
}

const WORK: &str = "
    SELECT delivery, attempts, tries, id, user_id, type, timestamp, payload, candidates,
        next_due, resume_at, has_due, due_at
    FROM tidings_webhook_work($1, $2, $3, $4, $5)";

pub(super) async fn work(
    connections: &Connections,
    query: &LaneQuery,
) -> Result<LaneWork, StoreError> {
    let held: Vec<_> = query.held.iter().map(|id| id.as_i64()).collect();
    let parameters = [
        (&query.endpoint.as_i64() as _, Type::INT8),
        (&micros(query.now) as _, Type::INT8),
        (&held as _, Type::INT8_ARRAY),
        (&limit(query.limit) as _, Type::INT8),
        (&limit(query.max_bytes) as _, Type::INT8),
    ];
    let (endpoint, rows) = tokio::join!(
        endpoints::find(connections, query.endpoint),
        connections.query(WORK, &parameters),
    );
    let (endpoint, rows) = (endpoint?, rows?);
    let (next, rows) = rows
        .split_last()
        .ok_or_else(|| StoreError::backend("the database returned no row"))?;
    let mut candidates = 0;
    let mut work = LaneWork {
        endpoint,
        due: Vec::with_capacity(rows.len()),
        next_due: optional_time(next.try_get(9).map_err(column)?)?,
        replay_due: optional_time(next.try_get(10).map_err(column)?)?,
    };
    for row in rows {
        candidates = row.try_get::<_, i64>(8).map_err(column)?;
        work.due.push(due(row)?);
    }
    if next.try_get(11).map_err(column)? || candidates > limit(work.due.len()) {
        work.next_due = Some(query.now);
    }
    Ok(work)
}

fn due(row: &Row) -> Result<DueDelivery, StoreError> {
    let count = |index| -> Result<u32, StoreError> {
        let count: i32 = row.try_get(index).map_err(column)?;
        Ok(count.unsigned_abs())
    };
    Ok(DueDelivery {
        id: DeliveryId::from_i64(row.try_get(0).map_err(column)?),
        attempts: count(1)?,
        tries: count(2)?,
        due_at: time(row.try_get(12).map_err(column)?)?,
        event: event(row),
    })
}

pub(super) async fn stored(
    connections: &Connections,
    endpoints: &[EndpointId],
) -> Result<Vec<StoredLane>, StoreError> {
    const LANES: &str = "
        SELECT endpoint, owner, nullif(blocked_until, 0), next_open_for,
            CASE WHEN owner IS NOT NULL THEN free_at END
        FROM tidings_webhook_lane WHERE endpoint = ANY($1)";
    let endpoints: Vec<_> = endpoints.iter().map(|id| id.as_i64()).collect();
    let parameters = [(&endpoints as _, Type::INT8_ARRAY)];
    let rows = connections.query(LANES, &parameters).await?;
    let lane = |row: &Row| {
        Ok(StoredLane {
            endpoint: EndpointId::from_i64(row.try_get(0).map_err(column)?),
            instance: row.try_get(1).map_err(column)?,
            leased_until: optional_time(row.try_get(4).map_err(column)?)?,
            blocked_until: optional_time(row.try_get(2).map_err(column)?)?,
            next_open_for: open_for(row.try_get(3).map_err(column)?),
        })
    };
    rows.iter().map(lane).collect()
}

pub(super) async fn next_due(
    connections: &Connections,
    endpoints: &[EndpointId],
) -> Result<Vec<NextDue>, StoreError> {
    let endpoints: Vec<_> = endpoints.iter().map(|id| id.as_i64()).collect();
    let parameters = [(&endpoints as _, Type::INT8_ARRAY)];
    let statement = "SELECT revision, due FROM tidings_webhook_next_due($1)";
    let rows = connections.query(statement, &parameters).await?;
    let next_due = |row: &Row| {
        let revision: i64 = row.try_get(0).map_err(column)?;
        Ok(NextDue {
            revision: revision.cast_unsigned(),
            due: optional_time(row.try_get(1).map_err(column)?)?,
        })
    };
    rows.iter().map(next_due).collect()
}

pub(super) async fn sent_event(
    connections: &Connections,
    id: DeliveryId,
) -> Result<Option<SentEvent>, StoreError> {
    const SENT: &str = "
        SELECT endpoint, NULL::int8, NULL::int8, id, user_id, type, timestamp, payload
        FROM tidings_webhook_delivery JOIN tidings_webhook_event USING (event)
        WHERE delivery = $1";
    let rows = connections
        .query(SENT, &[(&id.as_i64(), Type::INT8)])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(SentEvent {
        endpoint: EndpointId::from_i64(row.try_get(0).map_err(column)?),
        event: event(row).map_err(StoreError::backend)?,
    }))
}

/// Reads the event of a delivery, or says what is wrong with it.
fn event(row: &Row) -> Result<WebhookEvent, String> {
    let text = |index| -> Result<Option<String>, String> {
        row.try_get(index).map_err(|it| it.to_string())
    };
    let missing = || "the event is not stored any more".to_owned();
    let timestamp: Option<i64> = row.try_get(6).map_err(|it| it.to_string())?;
    Ok(WebhookEvent {
        id: text(3)?.ok_or_else(missing)?,
        user: text(4)?
            .map(UserId::new)
            .transpose()
            .map_err(|it| it.to_string())?,
        event_type: text(5)?.ok_or_else(missing)?,
        timestamp: Timestamp::from_microsecond(timestamp.ok_or_else(missing)?)
            .map_err(|it| it.to_string())?,
        payload: Payload::parse(&text(7)?.ok_or_else(missing)?).map_err(|it| it.to_string())?,
    })
}
