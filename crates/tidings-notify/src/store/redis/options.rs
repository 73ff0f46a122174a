use std::sync::Arc;

use tidings_redis::{HASH_TAG, hash_tag};

use crate::StoreError;

/// Events kept of each user, unless set.
const DEFAULT_MAX_EVENTS: u64 = 10_000;

/// How a [`RedisStore`](super::RedisStore) works.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    prefix: Arc<str>,
    pub(super) max_events: u64,
    pub(super) keeps_unread: bool,
    pub(super) run: &'static str,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "tidings:notify".into(),
            max_events: DEFAULT_MAX_EVENTS,
            keeps_unread: false,
            run: "",
        }
    }
}

impl RedisOptions {
    /// Sets what the names of all keys begin with, in braces: 1 to 255 bytes without braces and
    /// control characters, which opening checks. The default is `tidings:notify`.
    ///
    /// Stores of the same prefix share their logs, those of others do not see them. Wake-ups go by the
    /// prefix as well, whatever the number of the database.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how many events of each user are kept; zero means one. The default is 10,000: memory is
    /// what a Redis server has least of. A log that is longer, because the number was larger, gets shorter with each
    /// event, by up to a thousand.
    pub fn with_max_events_per_user(mut self, max: u64) -> Self {
        self.max_events = max.clamp(1, super::MAX_NUMBER);
        self
    }

    /// Keeps the oldest unread event of every inbox, and what came after it, whatever the number and the
    /// age: a user who reads nothing has a log without a limit.
    pub fn with_unread_kept(mut self) -> Self {
        self.keeps_unread = true;
        self
    }

    /// Promises that the server loses nothing that it has replied to: it has `appendfsync always`, and is
    /// never replaced by a replica. Then logs keep their epochs when it restarts. Without this promise,
    /// the readers of a log get a gap after the first append that follows a restart.
    pub fn with_durable_server(mut self) -> Self {
        self.run = "durable";
        self
    }

    /// What all keys begin with. The braces make it the hash tag.
    pub(super) fn root(&self) -> Result<Arc<str>, StoreError> {
        hash_tag(&self.prefix).ok_or(StoreError::InvalidOption {
            field: "prefix",
            expected: HASH_TAG,
        })
    }
}
