use std::sync::Arc;

use tidings_redis::{HASH_TAG, hash_tag};

use crate::presence::{DEFAULT_KEPT_TRANSITIONS, PresenceError};

/// Largest number that the server understands.
pub(super) const LARGEST: usize = isize::MAX.unsigned_abs();

/// How a [`RedisPresence`](super::RedisPresence) works.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    prefix: Arc<str>,
    kept_transitions: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "tidings:presence".into(),
            kept_transitions: DEFAULT_KEPT_TRANSITIONS,
        }
    }
}

impl RedisOptions {
    /// Sets what the names of all keys begin with, in braces: 1 to 255 bytes without braces and
    /// control characters, which opening checks. The default is `tidings:presence`.
    ///
    /// Presences of the same prefix share their users, those of others do not see them.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how many transitions are kept for those who watch. The default is
    /// [`DEFAULT_KEPT_TRANSITIONS`]. A watch that is further behind gets a report that others are missing.
    pub fn with_kept_transitions(mut self, kept: usize) -> Self {
        self.kept_transitions = kept.min(LARGEST);
        self
    }

    /// What all keys begin with, and how many transitions are kept. The braces make it the hash tag.
    pub(super) fn checked(self) -> Result<(Arc<str>, usize), PresenceError> {
        let root = hash_tag(&self.prefix).ok_or(PresenceError::InvalidOption {
            field: "prefix",
            expected: HASH_TAG,
        })?;
        Ok((root, self.kept_transitions))
    }
}
