//! Idempotency keys: what a caller sends to make a request repeatable.

use std::sync::Arc;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

/// How long a key is remembered: longer than the retries of any caller.
pub(crate) const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A key: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    pub(crate) fn new(key: &str) -> Option<Self> {
        let usable = (1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
        usable.then(|| Self(key.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request that must be accepted at most once.
#[derive(Debug, Clone)]
pub(crate) struct Once {
    pub(crate) key: IdempotencyKey,
    /// Differs between requests of the same key.
    pub(crate) fingerprint: [u8; 32],
}

impl Once {
    pub(crate) fn new(key: IdempotencyKey, route: &str, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(route.as_bytes());
        digest.update([0]);
        digest.update(body);
        Self {
            key,
            fingerprint: digest.finalize().into(),
        }
    }
}
