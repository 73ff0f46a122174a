use std::time::Duration;

/// Longest retention: a longer one would overflow the clock.
const MAX_RETENTION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How a [`PostgresBroker`](super::PostgresBroker) works.
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
    /// Sets how long a message that does not fit a notification is kept for subscribers to fetch;
    /// at most a year. The default is one minute.
    pub fn with_large_message_retention(mut self, retention: Duration) -> Self {
        self.retention = retention.min(MAX_RETENTION);
        self
    }
}
