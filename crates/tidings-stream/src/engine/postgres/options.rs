/// How many connections an engine has.
///
/// Each is used by one call at a time; further calls wait for one, no longer than
/// [`Config::reply_limit`](super::Config::reply_limit). One more connection listens.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct PostgresOptions {
    pub(super) publish_connections: usize,
    pub(super) consume_connections: usize,
    pub(super) prepares: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            publish_connections: 4,
            consume_connections: 4,
            prepares: true,
        }
    }
}

impl PostgresOptions {
    /// Sets how many streams can be published to at the same moment; zero means 1. The default is 4.
    ///
    /// Publishers of one stream share a transaction, and need one connection, however many they are.
    pub fn with_publish_connections(mut self, connections: usize) -> Self {
        self.publish_connections = connections.max(1);
        self
    }

    /// Sets how many claims, settlements and questions can be under way at the same moment; zero
    /// means 1. The default is 4.
    pub fn with_consume_connections(mut self, connections: usize) -> Self {
        self.consume_connections = connections.max(1);
        self
    }

    /// Prepares no statements, for a pooler that gives the statements of one connection to several
    /// sessions and does not prepare them itself: `PgBouncer` in transaction mode before version
    /// 1.21, or without `max_prepared_statements`. Each call costs the server some tens of microseconds
    /// more.
    pub fn without_prepared_statements(mut self) -> Self {
        self.prepares = false;
        self
    }
}
