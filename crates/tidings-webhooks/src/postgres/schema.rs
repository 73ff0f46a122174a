//! The tables, and the functions that change them.

use tidings_postgres::tokio_postgres;

use crate::StoreError;
pub(super) use crate::columns::{
    duration_micros, limit, micros, open_for, open_for_micros, optional_time, time,
};

/// Whose tables these are, in the database's list of schemas.
pub(super) const COMPONENT: &str = "tidings_webhooks";

/// The steps of the migration. One that was released is never changed; a change is another step.
pub(super) const STEPS: &[&str] = &[concat!(
    include_str!("schema/tables.sql"),
    include_str!("schema/commit.sql"),
    include_str!("schema/lanes.sql"),
    include_str!("schema/endpoints.sql"),
    include_str!("schema/audience.sql"),
    include_str!("schema/add.sql"),
    include_str!("schema/deferred.sql"),
    include_str!("schema/outcomes.sql"),
    include_str!("schema/deliveries.sql"),
    include_str!("schema/replay.sql"),
    include_str!("schema/cleanup.sql"),
)];

/// A column that is not what it should be.
pub(super) fn column(error: tokio_postgres::Error) -> StoreError {
    StoreError::backend(error)
}

/// A count as a column has it.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
