use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StorageError;
use crate::Scopes;

/// The API keys that are kept in the database. [`Records`](super::Records) stores new ones.
///
/// # Contract
///
/// - **Durable.** When [`remove`](Self::remove) returns, its effect survives a loss of power.
/// - **Read your writes**, on every handle of every instance.
///
/// `conformance.rs` holds both engines to it.
#[async_trait]
pub trait ApiKeyStore: Debug + Send + Sync + 'static {
    /// All keys, oldest first.
    async fn all(&self) -> Result<AllKeys, StorageError>;

    /// Removes a key. Returns whether there was one.
    async fn remove(&self, id: &str) -> Result<bool, StorageError>;

    /// Removes the keys that expired before a time.
    async fn remove_expired(&self, before: Timestamp) -> Result<(), StorageError>;

    /// Records when keys were used. A later time that is stored stays, and a key that is gone is left out.
    async fn record_use(&self, uses: &[(String, Timestamp)]) -> Result<(), StorageError>;
}

/// The keys that are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllKeys {
    /// Those that can be read.
    pub keys: Vec<StoredKey>,
    /// The ids of the others. One bad row must not lock out the callers with other keys.
    pub unreadable: Vec<String>,
}

impl AllKeys {
    /// Adds what was read of a row.
    pub(super) fn add(&mut self, id: String, key: Result<StoredKey, StorageError>) {
        match key {
            Ok(key) => self.keys.push(key),
            Err(_) => self.unreadable.push(id),
        }
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// `key_` and 16 hexadecimal digits.
    pub id: String,
    /// What it is for, in the words of its owner.
    pub name: String,
    /// SHA-256 of the key. The key is as random as the digest, so a faster hash is no weakness.
    pub digest: [u8; 32],
    /// The first characters of the key, by which its owner recognises it.
    pub prefix: String,
    /// What it allows.
    pub scopes: Scopes,
    /// When it was made, in microseconds.
    pub created_at: Timestamp,
    /// When it ends; `None` if it is valid until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// To the minute or so.
    pub last_used_at: Option<Timestamp>,
}
