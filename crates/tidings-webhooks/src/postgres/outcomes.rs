//! What became of attempts, and the health of endpoints that follows from it.

use std::collections::HashMap;

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::deliveries;
use super::schema::{column, count, duration_micros, micros, optional_time};
use crate::health::{ReplayProgress, StoredHealth};
use crate::store::{AfterAttempt, Outcome};
use crate::{EndpointId, StoreError};

const RECORD: &str = "
    SELECT failed_endpoint, since FROM tidings_webhook_record(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";

/// Outcomes, column by column.
#[derive(Default)]
struct Columns<'a> {
    rounds: Vec<i32>,
    deliveries: Vec<i64>,
    endpoints: Vec<i64>,
    were_due: Vec<i64>,
    states: Vec<i16>,
    dues: Vec<Option<i64>>,
    reasons: Vec<Option<&'a str>>,
    numbers: Vec<i32>,
    started: Vec<i64>,
    durations: Vec<i64>,
    statuses: Vec<Option<i32>>,
    errors: Vec<Option<&'a str>>,
    responses: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn new(outcomes: &'a [Outcome]) -> Self {
        let mut columns = Self::default();
        // A delivery that comes twice has its second outcome in another round.
        let mut rounds: HashMap<i64, i32> = HashMap::new();
        for outcome in outcomes {
            let delivery = outcome.delivery.as_i64();
            let round = rounds.entry(delivery).or_default();
            *round += 1;
            columns.rounds.push(*round);
            columns.deliveries.push(delivery);
            columns.endpoints.push(outcome.endpoint.as_i64());
            columns.were_due.push(micros(outcome.was_due_at));
            let (state, due, reason) = match &outcome.next {
                AfterAttempt::Retry(due) => {
                    (0, Some(micros(*due)), outcome.waits_because.as_deref())
                }
                AfterAttempt::Finish { state, reason } => (state.as_i16(), None, reason.as_deref()),
            };
            columns.states.push(state);
            columns.dues.push(due);
            columns.reasons.push(reason);
            let attempt = outcome.attempt.as_ref();
            columns
                .numbers
                .push(attempt.map_or(0, |it| count(it.number)));
            columns
                .started
                .push(attempt.map_or(0, |it| micros(it.started_at)));
            columns
                .durations
                .push(attempt.map_or(0, |it| duration_micros(it.duration)));
            columns
                .statuses
                .push(attempt.and_then(|it| it.status).map(i32::from));
            columns
                .errors
                .push(attempt.and_then(|it| it.error.as_deref()));
            columns
                .responses
                .push(attempt.map_or("", |it| &it.response));
        }
        columns
    }
}

pub(super) async fn record(
    connections: &Connections,
    outcomes: &[Outcome],
    now: Timestamp,
    at: Timestamp,
) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError> {
    let columns = Columns::new(outcomes);
    let tallies = crate::tally::by_endpoint(outcomes);
    let endpoints: Vec<_> = tallies.keys().map(|id| id.as_i64()).collect();
    let succeeded: Vec<_> = tallies.values().map(|it| count(it.succeeded)).collect();
    let failed: Vec<_> = tallies.values().map(|it| count(it.failed)).collect();
    let failing: Vec<_> = tallies.values().map(|it| it.ends_with_failure).collect();
    let rows = connections
        .query(
            RECORD,
            &[
                (&columns.rounds, Type::INT4_ARRAY),
                (&columns.deliveries, Type::INT8_ARRAY),
                (&columns.endpoints, Type::INT8_ARRAY),
                (&columns.were_due, Type::INT8_ARRAY),
                (&columns.states, Type::INT2_ARRAY),
                (&columns.dues, Type::INT8_ARRAY),
                (&columns.reasons, Type::TEXT_ARRAY),
                (&columns.numbers, Type::INT4_ARRAY),
                (&columns.started, Type::INT8_ARRAY),
                (&columns.durations, Type::INT8_ARRAY),
                (&columns.statuses, Type::INT4_ARRAY),
                (&columns.errors, Type::TEXT_ARRAY),
                (&columns.responses, Type::TEXT_ARRAY),
                (&endpoints, Type::INT8_ARRAY),
                (&succeeded, Type::INT4_ARRAY),
                (&failed, Type::INT4_ARRAY),
                (&failing, Type::BOOL_ARRAY),
                (&micros(now), Type::INT8),
                (&micros(at), Type::INT8),
            ],
        )
        .await?;
    let news = |row: &Row| {
        let endpoint = EndpointId::from_i64(row.try_get(0).map_err(column)?);
        Ok((endpoint, optional_time(row.try_get(1).map_err(column)?)?))
    };
    rows.iter().map(news).collect()
}

pub(super) async fn health(
    connections: &Connections,
    id: EndpointId,
) -> Result<StoredHealth, StoreError> {
    let mut health = StoredHealth {
        pending: deliveries::count_pending(connections, Some(id)).await?,
        ..StoredHealth::default()
    };
    let rows = connections
        .query(
            "SELECT last_success_at, last_failure_at, failing_since,
             succeeded + succeeded_before, failed + failed_before
         FROM tidings_webhook_health WHERE endpoint = $1",
            &[(&id.as_i64(), Type::INT8)],
        )
        .await?;
    let replays = connections
        .query(
            "SELECT position, last, per_second FROM tidings_webhook_replay WHERE endpoint = $1",
            &[(&id.as_i64(), Type::INT8)],
        )
        .await?;
    if let Some(row) = replays.first() {
        let number = |index| row.try_get::<_, i64>(index).map_err(column);
        let per_second: i32 = row.try_get(2).map_err(column)?;
        let progress = ReplayProgress::new(number(0)?, number(1)?, per_second.unsigned_abs());
        health.replay = Some(progress);
    }
    if let Some(row) = rows.first() {
        let time = |index| optional_time(row.try_get(index).map_err(column)?);
        let number = |index| -> Result<u64, StoreError> {
            let number: i64 = row.try_get(index).map_err(column)?;
            Ok(number.unsigned_abs())
        };
        health.last_success_at = time(0)?;
        health.last_failure_at = time(1)?;
        health.failing_since = time(2)?;
        health.succeeded = number(3)?;
        health.failed = number(4)?;
    }
    Ok(health)
}
