//! Replays: a stretch of events to one endpoint, step by step.

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::schema::{column, count, limit, micros, time};
use super::statements::Statements;
use crate::store::{NewReplay, ReplayEvent, ReplayPage, ReplayStep};
use crate::{EndpointId, StoreError};

pub(super) async fn start(
    statements: &impl Statements,
    replay: &NewReplay,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = statements
        .row(
            "SELECT tidings_webhook_start_replay($1, $2, $3, $4, $5)",
            &[
                (&replay.endpoint.as_i64(), Type::INT8),
                (&micros(replay.since), Type::INT8),
                (&micros(replay.until), Type::INT8),
                (&count(replay.per_second), Type::INT4),
                (&micros(now), Type::INT8),
            ],
        )
        .await?;
    row.try_get(0).map_err(column)
}

pub(super) async fn stop(
    connections: &Connections,
    endpoint: EndpointId,
) -> Result<bool, StoreError> {
    let row = connections
        .row(
            "SELECT tidings_webhook_stop_replay($1)",
            &[(&endpoint.as_i64(), Type::INT8)],
        )
        .await?;
    row.try_get(0).map_err(column)
}

pub(super) async fn page(
    connections: &Connections,
    endpoint: EndpointId,
    most: usize,
) -> Result<Option<ReplayPage>, StoreError> {
    let rows = connections
        .query(
            "SELECT position, last, per_second, resume_at, user_id
             FROM tidings_webhook_replay JOIN tidings_webhook_endpoint USING (endpoint)
             WHERE endpoint = $1",
            &[(&endpoint.as_i64(), Type::INT8)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let from: i64 = row.try_get(0).map_err(column)?;
    let last: i64 = row.try_get(1).map_err(column)?;
    let per_second: i32 = row.try_get(2).map_err(column)?;
    let due = time(row.try_get(3).map_err(column)?)?;
    let user: Option<String> = row.try_get(4).map_err(column)?;
    let condition = match user {
        Some(_) => "user_id = $4",
        None => "$4::text IS NULL",
    };
    let statement = format!(
        "SELECT event, type FROM tidings_webhook_event
         WHERE event > $1 AND event <= $2 AND {condition} ORDER BY event LIMIT $3"
    );
    let rows = connections
        .query(
            &statement,
            &[
                (&from, Type::INT8),
                (&last, Type::INT8),
                (&limit(most), Type::INT8),
                (&user, Type::TEXT),
            ],
        )
        .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        events.push(ReplayEvent {
            number: row.try_get(0).map_err(column)?,
            event_type: row.try_get(1).map_err(column)?,
        });
    }
    Ok(Some(ReplayPage {
        from,
        due,
        per_second: per_second.unsigned_abs(),
        to: events.last().map_or(last, |event| event.number),
        more: events.len() >= most,
        events,
    }))
}

pub(super) async fn step(
    connections: &Connections,
    step: &ReplayStep,
    at: Timestamp,
) -> Result<(), StoreError> {
    let events: Vec<i64> = step.events.iter().map(|(event, _)| *event).collect();
    let dues: Vec<i64> = step.events.iter().map(|(_, due)| micros(*due)).collect();
    let position = step.cursor.map(|(position, _)| position);
    let resume_at = step.cursor.map(|(_, due)| micros(due));
    connections
        .query(
            "SELECT tidings_webhook_replay_step($1, $2, $3, $4, $5, $6, $7)
             FROM (SELECT FROM tidings_webhook_replay
                 WHERE endpoint = $1 AND position = $2 AND resume_at = $8 FOR UPDATE) AS same",
            &[
                (&step.endpoint.as_i64(), Type::INT8),
                (&step.from, Type::INT8),
                (&events, Type::INT8_ARRAY),
                (&dues, Type::INT8_ARRAY),
                (&position, Type::INT8),
                (&resume_at, Type::INT8),
                (&micros(at), Type::INT8),
                (&micros(step.due), Type::INT8),
            ],
        )
        .await?;
    Ok(())
}
