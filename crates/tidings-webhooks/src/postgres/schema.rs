//! The tables, and the functions that change them.

use tidings_postgres::tokio_postgres;

use crate::StoreError;
pub(super) use crate::columns::{
    duration_micros, limit, micros, open_for, open_for_micros, optional_time, time,
};

/// Whose tables these are, in the database's list of schemas.
pub(super) const COMPONENT: &str = "tidings_webhooks";

/// What made the tables; a released step never changes.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/1_tables.sql"),
    include_str!("schema/2_functions.sql"),
    include_str!("schema/3_deferred.sql"),
    include_str!("schema/4_leader.sql"),
    include_str!("schema/5_look.sql"),
    include_str!("schema/6_hand_over.sql"),
    include_str!("schema/7_stop_replay.sql"),
    include_str!("schema/8_repeats.sql"),
    include_str!("schema/9_clean.sql"),
    include_str!("schema/10_begun_again.sql"),
    include_str!("schema/11_count_added.sql"),
    include_str!("schema/12_circuits.sql"),
];

/// A column that is not what it should be.
pub(super) fn column(error: tokio_postgres::Error) -> StoreError {
    StoreError::backend(error)
}

/// A count as a column has it.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
