//! The tables, the functions that change them, and how values become columns.

use crate::Epoch;

/// Whose tables these are, in the database's list of schemas.
pub(super) const COMPONENT: &str = "tidings_notify";

/// The steps of the migration. One that was released is never changed; a change is another step.
pub(super) const STEPS: &[&str] = &[concat!(
    include_str!("schema/tables.sql"),
    include_str!("schema/line.sql"),
    include_str!("schema/commit.sql"),
    include_str!("schema/state.sql"),
    include_str!("schema/append.sql"),
    include_str!("schema/change.sql"),
    include_str!("schema/delivered.sql"),
    include_str!("schema/cursor.sql"),
    include_str!("schema/inbox.sql"),
    include_str!("schema/cleanup.sql"),
    include_str!("schema/notify.sql"),
)];

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
