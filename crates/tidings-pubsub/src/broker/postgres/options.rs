use std::time::Duration;

/// How a [`Postgres`](crate::Postgres) works.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct PostgresOptions {
    pub(super) retention: Duration,
}

impl Default for PostgresOptions {
    /// Large messages are kept for one minute.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(60),
        }
    }
}

impl PostgresOptions {
    /// Sets how long a message that does not fit a notification is kept for subscribers to fetch.
    /// The default is one minute.
    pub fn with_large_message_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }
}
