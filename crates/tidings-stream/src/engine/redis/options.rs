use std::sync::Arc;

use tidings_redis::{HASH_TAG, hash_tag};

use crate::{Error, Result};

/// What is particular to streams on a Redis server.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct RedisOptions {
    prefix: Arc<str>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "tidings:stream".into(),
        }
    }
}

impl RedisOptions {
    /// Sets what the names of all keys begin with, in braces: 1 to 255 bytes without braces and
    /// control characters, which opening checks. The default is `tidings:stream`.
    ///
    /// Engines of the same prefix share their streams, those of others do not see them. Wake-ups go
    /// by the prefix as well, whatever the number of the database.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What all keys begin with. The braces make it the hash tag.
    pub(super) fn root(&self) -> Result<Arc<str>> {
        hash_tag(&self.prefix).ok_or(Error::InvalidOption {
            field: "prefix",
            expected: HASH_TAG,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_would_spoil_the_hash_tag_is_refused() {
        let root = |options: RedisOptions| options.root();
        let default = root(RedisOptions::default());
        assert_eq!(&*default.unwrap(), "{tidings:stream}");
        let spoilt = root(RedisOptions::default().with_prefix("a}b")).unwrap_err();
        let field = "prefix";
        assert!(matches!(spoilt, Error::InvalidOption { field: it, .. } if it == field));
    }
}
