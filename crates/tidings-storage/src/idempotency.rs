//! Idempotency keys: what a caller sends to make a request repeatable.

use std::sync::Arc;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

/// How long a key is remembered: longer than the retries of any caller.
pub(crate) const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// The header with the key.
pub const NAME: &str = "Idempotency-Key";

/// A key: 1 to 255 visible ASCII characters, after the namespace of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Reads the header: the key as it is, or as a quoted string, as the draft of the IETF has it. Both name
    /// the same key.
    pub fn parse(header: &str) -> Option<Self> {
        let Some(rest) = header.strip_prefix('"') else {
            return Self::new(header);
        };
        let mut key = String::new();
        let mut characters = rest.strip_suffix('"')?.chars();
        while let Some(character) = characters.next() {
            key.push(match character {
                '\\' => characters.next().filter(|c| matches!(c, '"' | '\\'))?,
                '"' => return None,
                character => character,
            });
        }
        Self::new(&key)
    }

    /// A key as it is; `None` if it is not 1 to 255 visible ASCII characters.
    pub fn new(key: &str) -> Option<Self> {
        let usable = (1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
        usable.then(|| Self(key.into()))
    }

    /// The key of one caller among those of others.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        if namespace.is_empty() {
            return self;
        }
        Self(format!("{namespace}{}", self.0).into())
    }

    /// The key, after its namespace.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request that must be accepted at most once.
#[derive(Debug, Clone)]
pub struct Once {
    /// Which request it is.
    pub key: IdempotencyKey,
    /// Differs between requests of the same key.
    pub fingerprint: [u8; 32],
}

/// What a response that is kept for a repeat is bound to where it is encrypted.
pub fn context(key: &str) -> String {
    format!("response to {key}")
}

impl Once {
    /// The request with this body to a route.
    pub fn new(key: IdempotencyKey, route: &str, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(route.as_bytes());
        digest.update([0]);
        digest.update(body);
        Self {
            key,
            fingerprint: digest.finalize().into(),
        }
    }

    /// What its response is bound to where it is encrypted.
    pub fn context(&self) -> String {
        context(self.key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        for (header, key) in [
            ("order-17", Some("order-17")),
            (r#""order-17""#, Some("order-17")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#"a"b"#, Some(r#"a"b"#)),
            (r#""""#, None),
            (r#"""#, None),
            (r#""open"#, None),
            (r#""a"b""#, None),
            (r#""a\"#, None),
            (r#""a\n""#, None),
            ("two words", None),
            ("", None),
        ] {
            let parsed = IdempotencyKey::parse(header);
            assert_eq!(parsed.as_ref().map(IdempotencyKey::as_str), key, "{header}");
        }
    }
}
