//! Removing what is too old, or too much, a little at a time.

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::log::get;
use super::schema::number;
use crate::StoreError;
use crate::store::retention::Retention;

/// Events removed in one transaction, for which appends to that log wait.
const EVENTS_PER_STEP: i64 = 1000;

const AGED: &str = "SELECT aged, last FROM tidings_notify_aged($1, $2, $3, $4)";

/// Nothing is removed from a log that another transaction holds, until the next cleanup.
const TRIM: &str = "SELECT coalesce((
    SELECT tidings_notify_trim(free.id, $2, $3, $4, $5)
    FROM (SELECT log.id FROM tidings_notify_log AS log WHERE log.id = $1
        FOR NO KEY UPDATE SKIP LOCKED) AS free), 0)";

pub(super) async fn run(
    connections: &Connections,
    cutoff: Timestamp,
    retention: Retention,
) -> Result<u64, StoreError> {
    let cutoff = cutoff.as_microsecond();
    let max = retention.max_events.map(super::schema::column);
    let keep = retention.keeps_unread;
    let mut removed = 0;
    let mut after = 0_i64;
    loop {
        let parameters = [
            (&after as _, Type::INT8),
            (&cutoff as _, Type::INT8),
            (&max as _, Type::INT8),
            (&keep as _, Type::BOOL),
        ];
        let row = connections.row(AGED, &parameters).await?;
        let Some(last) = get::<Option<i64>>(&row, 1)? else {
            return Ok(removed);
        };
        for log in get::<Option<Vec<i64>>>(&row, 0)?.unwrap_or_default() {
            loop {
                let parameters = [
                    (&log as _, Type::INT8),
                    (&cutoff as _, Type::INT8),
                    (&max as _, Type::INT8),
                    (&keep as _, Type::BOOL),
                    (&EVENTS_PER_STEP as _, Type::INT8),
                ];
                let row = connections.row(TRIM, &parameters).await?;
                let step = get::<i64>(&row, 0)?;
                removed += number(step);
                if step < EVENTS_PER_STEP {
                    break;
                }
            }
        }
        after = last;
    }
}
