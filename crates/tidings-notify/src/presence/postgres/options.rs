use crate::presence::DEFAULT_KEPT_TRANSITIONS;

/// How a [`PostgresPresence`](super::PostgresPresence) works.
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresOptions {
    pub(super) kept_transitions: i64,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            kept_transitions: 0,
        }
        .with_kept_transitions(DEFAULT_KEPT_TRANSITIONS)
    }
}

impl PostgresOptions {
    /// Sets how many transitions are kept for those who watch. The default is
    /// [`DEFAULT_KEPT_TRANSITIONS`]. A watch that is further behind gets a report that others are missing.
    pub fn with_kept_transitions(mut self, kept: usize) -> Self {
        self.kept_transitions = i64::try_from(kept).unwrap_or(i64::MAX);
        self
    }
}
