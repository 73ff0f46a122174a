//! Remembering which requests have been accepted, so that a repeat is harmless.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};
use sha2::{Digest, Sha256};

/// How long a key is remembered: longer than any caller's retries.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Keys that one cleaning removes at most, so that it never holds up the writer for long.
const CLEANED_AT_ONCE: u32 = 1000;

pub(crate) const SCHEMA: &[&str] = &["
    CREATE TABLE idempotency (
        key TEXT PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        answer TEXT NOT NULL,
        accepted_at INTEGER NOT NULL -- microseconds since 1970
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_age ON idempotency (accepted_at);
"];

/// What a caller names a request by: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone)]
pub(crate) struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    pub(crate) fn new(key: &str) -> Option<Self> {
        let usable = (1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
        usable.then(|| Self(key.into()))
    }
}

/// A named request and the digest that tells it from others of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Idempotent {
    key: IdempotencyKey,
    fingerprint: [u8; 32],
}

/// What the table knows about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody sent it before.
    New,
    /// It was accepted, and this was the answer.
    Repeat(String),
    /// Its key was used for another request.
    Conflict,
}

impl Idempotent {
    /// Names a request by its key; `route` and `body` tell requests apart.
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

    /// Looks the request up in the transaction that will accept it.
    pub(crate) fn look_up(&self, tx: &Transaction<'_>) -> rusqlite::Result<Known> {
        let found = tx
            .prepare_cached(
                "SELECT fingerprint, answer FROM idempotency WHERE key = ?1 AND accepted_at > ?2",
            )?
            .query_row((&self.key.0, oldest_kept()), |row| {
                Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(match found {
            None => Known::New,
            Some((fingerprint, answer)) if fingerprint == self.fingerprint => Known::Repeat(answer),
            Some(_) => Known::Conflict,
        })
    }

    /// Records the answer in the transaction that accepts the request.
    pub(crate) fn record(&self, tx: &Transaction<'_>, answer: &str) -> rusqlite::Result<()> {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO idempotency (key, fingerprint, answer, accepted_at)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((
            &self.key.0,
            self.fingerprint,
            answer,
            Timestamp::now().as_microsecond(),
        ))?;
        Ok(())
    }
}

/// Forgets keys that are too old to matter; answers how many, at most a thousand.
pub(crate) fn clean(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM idempotency WHERE key IN (
             SELECT key FROM idempotency WHERE accepted_at <= ?1 LIMIT ?2)",
    )?
    .execute((oldest_kept(), CLEANED_AT_ONCE))
}

fn oldest_kept() -> i64 {
    (Timestamp::now() - KEPT).as_microsecond()
}
