//! The tables and functions.
//!
//! What a call does is a function of the database: one round trip, whose statements are planned once
//! per session, even behind a pooler that keeps no prepared statements.

/// The steps of the migration. One that was released is never changed; a change is another step.
pub(super) const STEPS: [&str; 1] = [concat!(
    include_str!("schema/tables.sql"),
    include_str!("schema/begin.sql"),
    include_str!("schema/retries.sql"),
    include_str!("schema/append.sql"),
    include_str!("schema/claim.sql"),
    include_str!("schema/settle.sql"),
    include_str!("schema/groups.sql"),
    include_str!("schema/figures.sql"),
    include_str!("schema/outbox.sql"),
)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{MAX_HELD_BACK, REDRIVE_GROUP};

    /// What stands in Rust and in SQL is the same.
    #[test]
    fn the_functions_know_what_the_engine_knows() {
        let [functions] = STEPS;
        let most_held_back = format!("v_held_back >= {MAX_HELD_BACK}");
        assert_eq!(functions.matches(&most_held_back).count(), 2);
        assert_eq!(functions.matches(&format!("'{REDRIVE_GROUP}'")).count(), 2);
    }
}
