//! The tables, the functions that change them, and how values become columns.

use crate::Epoch;

/// Whose tables these are, in the database's list of schemas.
pub(super) const COMPONENT: &str = "tidings_notify";

/// What made the tables; a released step never changes.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/1_tables.sql"),
    include_str!("schema/2_functions.sql"),
    include_str!("schema/3_notify.sql"),
    include_str!("schema/4_line.sql"),
    include_str!("schema/5_checks.sql"),
    include_str!("schema/6_creation.sql"),
    include_str!("schema/7_trim.sql"),
    include_str!("schema/8_unread.sql"),
    include_str!("schema/9_durable_trim.sql"),
    include_str!("schema/10_taken.sql"),
];

/// The columns have a sign and epochs have none: they share the same 64 bits.
pub(super) fn epoch(column: i64) -> Epoch {
    Epoch::from_u64(column.cast_unsigned())
}

pub(super) fn epoch_column(epoch: Epoch) -> i64 {
    epoch.as_u64().cast_signed()
}

/// A number that cannot be negative.
pub(super) fn number(column: i64) -> u64 {
    column.unsigned_abs()
}

/// A caller's number as a column has it. None in the database is greater.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
