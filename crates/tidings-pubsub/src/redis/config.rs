use std::sync::Arc;

use tidings_redis::Config;

/// What a [`Redis`](crate::Redis) works with: the server, and what is particular to topics.
///
/// A [`tidings_redis::Config`] alone is one with everything at its default.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisConfig {
    pub(super) server: Config,
    pub(super) prefix: Arc<str>,
}

impl RedisConfig {
    /// Topics on this server, with everything else at its default.
    pub fn new(server: Config) -> Self {
        Self {
            server,
            prefix: "tidings".into(),
        }
    }

    /// Sets what channels begin with, before a colon. The default is `tidings`.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }
}

impl From<Config> for RedisConfig {
    fn from(server: Config) -> Self {
        Self::new(server)
    }
}
