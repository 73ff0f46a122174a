//! Removing what is too old, or too much, a little at a time.

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::Type;

use super::log::get;
use super::schema::number;
use crate::StoreError;
use crate::store::retention::Retention;

/// Events removed in one transaction, for which appends to that log wait.
const EVENTS_PER_STEP: i64 = 1000;

const AGED: &str = "SELECT aged, last FROM tidings_notify_aged($1, $2, $3, $4)";

/// It has its turn among appends. A transaction that holds the log for longer than that is the application's, and the
/// next cleanup removes what is left.
const TRIM: &str = "SELECT tidings_notify_trim($1, $2, $3, $4, $5)
    FROM (SELECT set_config('lock_timeout', '250ms', true) OFFSET 0) AS patience";

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
                let row = match connections.row(TRIM, &parameters).await {
                    Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => break,
                    row => row?,
                };
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
