//! The tables and functions. A step that has been released is never changed.
//!
//! What a call does is a function of the database: one round trip, whose statements are planned once
//! per session, even behind a pooler that keeps no prepared statements.

/// The steps of the migration.
pub(super) fn steps() -> [&'static str; 1] {
    [concat!(
        include_str!("schema/tables.sql"),
        include_str!("schema/append.sql"),
        include_str!("schema/claim.sql"),
        include_str!("schema/settle.sql"),
        include_str!("schema/groups.sql"),
        include_str!("schema/outbox.sql"),
    )]
}
