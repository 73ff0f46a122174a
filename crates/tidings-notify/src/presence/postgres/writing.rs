//! What instances write.

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Database, Parameter};

use super::failure;
use crate::UserId;
use crate::presence::{Heartbeat, Lease, LeaseId, MAX_UPDATE, PresenceError, Standing, Update};

const UPDATE: &str = "SELECT tidings_presence_update($1, $2, $3, $4, $5, $6, $7, $8)";

/// Also returns whether a lease has ended that has to be cleaned up.
const BEAT: &str = "
    UPDATE tidings_presence_lease
    SET ends_at = tidings_presence_after($2)
    WHERE lease_id = $1 AND version = $3
        AND (SELECT count(*) FROM tidings_presence_user WHERE lease_id = $1) = $4
    RETURNING EXISTS (SELECT FROM tidings_presence_lease WHERE ends_at <= clock_timestamp())";

const END: &str = "SELECT tidings_presence_end($1)";

const REAP: &str = "SELECT tidings_presence_reap($1, $2)";

pub(super) async fn update(
    database: &Database,
    kept: i64,
    lease: &Lease,
    update: &Update,
) -> Result<Standing, PresenceError> {
    let routing = serde_json::to_string(&lease.routing).map_err(PresenceError::backend)?;
    let names = |users: &[UserId]| users.iter().map(UserId::to_string).collect();
    let (came, left): (Vec<String>, Vec<String>) = (names(&update.came), names(&update.left));
    let parameters: [Parameter<'_>; 8] = [
        (&signed(lease.id), Type::INT8),
        (&routing, Type::TEXT),
        (&millis(lease), Type::INT8),
        (&update.confirmed.cast_signed(), Type::INT8),
        (&update.version.cast_signed(), Type::INT8),
        (&came, Type::TEXT_ARRAY),
        (&left, Type::TEXT_ARRAY),
        (&kept, Type::INT8),
    ];
    let rows = in_transaction(database, UPDATE, &parameters).await?;
    let row = rows.first().ok_or_else(failure::unexpected)?;
    let is_kept: bool = failure::column(row, 0)?;
    Ok(if is_kept {
        Standing::Kept
    } else {
        Standing::Lost
    })
}

pub(super) async fn beat(
    database: &Database,
    kept: i64,
    lease: &Lease,
    expected: &Heartbeat,
) -> Result<Standing, PresenceError> {
    let parameters: [Parameter<'_>; 4] = [
        (&signed(lease.id), Type::INT8),
        (&millis(lease), Type::INT8),
        (&expected.version.cast_signed(), Type::INT8),
        (&expected.users.cast_signed(), Type::INT8),
    ];
    let rows = database
        .run(|client| async move { client.query_typed(BEAT, &parameters).await })
        .await
        .map_err(PresenceError::backend)?;
    let Some(row) = rows.first() else {
        return Ok(Standing::Lost);
    };
    if failure::column(row, 0)? {
        reap(database, kept).await?;
    }
    Ok(Standing::Kept)
}

pub(super) async fn end(database: &Database, lease: LeaseId) -> Result<(), PresenceError> {
    in_transaction(database, END, &[(&signed(lease), Type::INT8)]).await?;
    Ok(())
}

/// Removes some of what leases that have ended leave behind. Returns whether there is more.
pub(super) async fn reap(database: &Database, kept: i64) -> Result<bool, PresenceError> {
    let limit = i64::try_from(MAX_UPDATE).unwrap_or(i64::MAX);
    let parameters: [Parameter<'_>; 2] = [(&limit, Type::INT8), (&kept, Type::INT8)];
    let rows = in_transaction(database, REAP, &parameters).await?;
    failure::column(rows.first().ok_or_else(failure::unexpected)?, 0)
}

/// Runs a statement at the isolation level that the functions need.
async fn in_transaction(
    database: &Database,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, PresenceError> {
    database
        .run(|client| async move { client.query_in_transaction(statement, parameters).await })
        .await
        .map_err(PresenceError::backend)
}

fn signed(lease: LeaseId) -> i64 {
    lease.as_u64().cast_signed()
}

fn millis(lease: &Lease) -> i64 {
    i64::try_from(lease.lasts().as_millis()).unwrap_or(i64::MAX)
}
