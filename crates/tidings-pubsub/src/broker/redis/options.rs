use std::sync::Arc;

/// How a [`RedisBroker`](super::RedisBroker) works.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    pub(super) prefix: Arc<str>,
}

impl Default for RedisOptions {
    /// Channels begin with `tidings:`.
    fn default() -> Self {
        Self {
            prefix: "tidings".into(),
        }
    }
}

impl RedisOptions {
    /// Sets what channels begin with, before a colon. The default is `tidings`.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }
}
