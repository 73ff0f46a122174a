//! What a Tidings server keeps, as named operations on plain data.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-server`, or the packages of the parts; this crate is
//! published because the server depends on it.
//!
//! Callers see no engine, no transaction and no path. The stores of the other packages are its parts, in one database, so that one transaction covers a user's log,
//! the inbox counters, the work of webhooks and the idempotency key.
//!
//! | part | has |
//! |---|---|
//! | `logs` | the log and the inbox of each user |
//! | `streams` | durable streams: the work of the fan-out |
//! | `webhooks` | endpoints, deliveries, attempts, lanes |
//! | `presence` | who is online |
//! | `api_keys` | API keys, by their digests |
//! | `records` | the operations that concern several parts at once, with their idempotency keys |
//! | `requests` | what is known of requests by their idempotency keys |
//!
//! [`DatabaseUrl`] names the engine, and [`Storage::open`] is the one place that asks for it. Each
//! engine has a file here; `conformance` holds all of them to the same contract. Beside PostgreSQL, a
//! Redis server can keep the presence and carry wake-ups.
//!
//! Beside them is what `tidings doctor` finds in a database ([`inspection`]), how a file moves to PostgreSQL
//! ([`import`]), and how errors are told to people ([`explain`]).
//!
//! ```
//! use tidings_storage::{DatabaseUrl, Storage};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let url = DatabaseUrl::Sqlite(folder.path().join("tidings.db"));
//! let storage = Storage::open(&url, None).await?;
//! storage.records.ready().await?;
//! assert!(storage.api_keys.all().await?.keys.is_empty());
//! storage.close().await;
//! # Ok(())
//! # }
//! ```

#![doc(test(attr(deny(unused_imports))))]

mod api_keys;
#[cfg(test)]
mod conformance;
mod counted;
mod error;
pub mod explain;
pub mod finding;
pub mod idempotency;
mod import;
pub mod inspection;
mod postgres;
mod records;
pub mod redis;
mod requests;
mod scope;
mod sqlite;
mod stored;
mod url;

use std::sync::Arc;

use tidings_notify::presence::PresenceError;
use tidings_stream::Streams;
use tokio_util::task::AbortOnDropHandle;

pub use self::api_keys::{AllKeys, ApiKeyStore, StoredKey};
pub use self::counted::counted;
pub use self::error::StorageError;
pub use self::import::{ImportError, Imported, import};
pub use self::records::{
    Accept, Accepted, CLEANED_AT_ONCE, Change, Changed, Keep, Records, Respond, Turn,
};
pub use self::redis::Redis;
pub use self::requests::{KeptResponse, NewResponse, Requests};
pub use self::scope::{Scope, Scopes};
pub use self::url::{DatabaseUrl, InvalidDatabaseUrl, InvalidRedisUrl, PostgresUrl, RedisUrl};

/// The parts that keep something, all in one database. Clones share it.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The log and the inbox of each user.
    pub logs: Arc<dyn tidings_notify::Store>,
    /// Durable streams: the work of the fan-out.
    pub streams: Streams,
    /// Endpoints, deliveries, attempts, lanes.
    pub webhooks: Arc<dyn tidings_webhooks::Store>,
    /// Who is online.
    pub presence: Arc<dyn tidings_notify::Presence>,
    /// The operations that concern several parts at once.
    pub records: Arc<dyn Records>,
    /// What is known of requests by their idempotency keys.
    pub requests: Arc<dyn Requests>,
    /// API keys, by their digests.
    pub api_keys: Arc<dyn ApiKeyStore>,
    /// How many reads it serves at the same time; others wait behind them.
    pub reads_at_once: usize,
    /// Keeps imports out until they see that the database is in use.
    starting: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Storage {
    /// Opens the database, creates or migrates its tables, and keeps the data of earlier versions. A file
    /// has no use for Redis.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when the database cannot be used, or has the tables of a later version.
    pub async fn open(url: &DatabaseUrl, redis: Option<Redis>) -> Result<Self, StorageError> {
        match url {
            DatabaseUrl::Sqlite(path) => sqlite::open(path).await,
            DatabaseUrl::Postgres(url) => postgres::open(url, redis).await,
        }
    }

    /// Finishes what is queued, and refuses later calls. Closing twice is harmless.
    pub async fn close(&self) {
        self.streams.close().await;
        self.webhooks.close().await;
        self.presence.close().await;
        self.records.close().await;
        self.logs.close().await;
        if let Some(starting) = &self.starting {
            starting.abort();
        }
    }
}

/// What a part of the storage reports of its engine.
fn of_engine(cause: &(dyn std::error::Error + 'static)) -> Option<StorageError> {
    sqlite::of_engine(cause).or_else(|| postgres::of_engine(cause))
}

impl From<tidings_notify::StoreError> for StorageError {
    fn from(error: tidings_notify::StoreError) -> Self {
        use tidings_notify::StoreError;
        match error {
            StoreError::Closed => Self::Closed,
            StoreError::Full(source) => Self::Full { source },
            StoreError::Locked => Self::Locked,
            StoreError::OutcomeUnknown(source) => Self::OutcomeUnknown { source },
            StoreError::Unavailable(source) => {
                sqlite::of_engine(&*source).unwrap_or(Self::Unavailable { source })
            }
            error => Self::failed(error),
        }
    }
}

impl From<PresenceError> for StorageError {
    fn from(error: PresenceError) -> Self {
        match error {
            PresenceError::Closed => Self::Closed,
            PresenceError::Backend { source } => {
                of_engine(&*source).unwrap_or(Self::Failed { source })
            }
            error => Self::failed(error),
        }
    }
}

impl From<tidings_webhooks::StoreError> for StorageError {
    fn from(error: tidings_webhooks::StoreError) -> Self {
        use tidings_webhooks::StoreError;
        match error {
            StoreError::Closed => Self::Closed,
            StoreError::Full(source) => Self::Full { source },
            StoreError::OutcomeUnknown(source) => Self::OutcomeUnknown { source },
            StoreError::Unavailable(source) => {
                sqlite::of_engine(&*source).unwrap_or(Self::Unavailable { source })
            }
            // Also what the streams report of the database while they hand an event over.
            error => {
                let postgres = crate::explain::find::<tidings_postgres::Error>(&error);
                let sqlite = crate::explain::find::<tidings_sqlite::Error>(&error);
                let reported = postgres.cloned().map(Self::from);
                let reported = reported.or_else(|| sqlite.cloned().map(Self::from));
                reported.unwrap_or_else(|| Self::failed(error))
            }
        }
    }
}

impl From<tidings_stream::Error> for StorageError {
    fn from(error: tidings_stream::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use tidings_sqlite::rusqlite::{self, ffi};

    use super::*;

    #[test]
    fn a_reply_that_a_store_did_not_get_is_an_unknown_outcome() {
        for error in [
            tidings_notify::StoreError::from(tidings_postgres::Error::late()).into(),
            tidings_webhooks::StoreError::from(tidings_postgres::Error::late()).into(),
        ] {
            assert!(
                matches!(error, StorageError::OutcomeUnknown { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn regression_a_disk_that_fails_behind_the_errors_of_other_packages_is_an_outage() {
        let disk = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None);
        let disk = tidings_sqlite::Error::from(disk);
        let error = StorageError::from(tidings_webhooks::StoreError::backend(disk));
        assert!(
            matches!(error, StorageError::Unavailable { .. }),
            "{error:?}"
        );
    }
}
