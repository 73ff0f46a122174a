use std::sync::Arc;

use crate::Error;

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
    pub(super) fn root(&self) -> Result<Arc<str>, Error> {
        let is_odd = |c: char| c.is_control() || matches!(c, '{' | '}');
        if !(1..=255).contains(&self.prefix.len()) || self.prefix.contains(is_odd) {
            return Err(Error::InvalidOption {
                field: "prefix",
                expected: "1 to 255 bytes without braces and control characters",
            });
        }
        Ok(format!("{{{}}}", self.prefix).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_would_spoil_the_hash_tag_is_refused() {
        let root = |prefix: &str| RedisOptions::default().with_prefix(prefix).root();
        assert_eq!(
            &*RedisOptions::default().root().unwrap(),
            "{tidings:stream}"
        );
        assert_eq!(&*root("ä b").unwrap(), "{ä b}");
        for prefix in ["", "{", "a}b", "line\nbreak", &"x".repeat(256)] {
            assert!(matches!(
                root(prefix).unwrap_err(),
                Error::InvalidOption {
                    field: "prefix",
                    ..
                }
            ));
        }
    }
}
