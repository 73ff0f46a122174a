use std::time::Duration;

use tidings_postgres::Config;

/// What a [`Postgres`](crate::Postgres) works with: the database, and what is particular to topics.
///
/// A [`tidings_postgres::Config`] alone is one with everything at its default.
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresConfig {
    pub(super) database: Config,
    pub(super) retention: Duration,
}

impl PostgresConfig {
    /// Topics in this database, with everything else at its default.
    pub fn new(database: Config) -> Self {
        Self {
            database,
            retention: Duration::from_secs(60),
        }
    }

    /// Sets how long a message that does not fit a notification is kept for subscribers to fetch.
    /// The default is one minute.
    pub fn with_large_message_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }
}

impl From<Config> for PostgresConfig {
    fn from(database: Config) -> Self {
        Self::new(database)
    }
}
