//! What the server keeps, as named operations on plain data. Handlers see no engine, no transaction
//! and no path.
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
//! [`DatabaseUrl`] names the engine, and `Storage::open` is the one place that asks for it. Each
//! engine has a file here; `conformance` holds all of them to the same contract. Beside PostgreSQL, a
//! Redis server can keep the presence and carry wake-ups.

mod api_keys;
#[cfg(test)]
mod conformance;
mod error;
mod import;
pub(crate) mod inspection;
mod postgres;
mod records;
pub(crate) mod redis;
mod requests;
mod sqlite;
mod stored;
mod url;

use std::sync::Arc;

use tidings_notify::presence::PresenceError;
use tidings_stream::Streams;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::api_keys::{AllKeys, ApiKeyStore, StoredKey};
pub use self::error::StorageError;
pub(crate) use self::import::{Imported, import};
pub(crate) use self::records::{
    Accept, Accepted, CLEANED_AT_ONCE, Change, Changed, Keep, Records, Turn,
};
pub(crate) use self::redis::Redis;
pub(crate) use self::requests::{KeptResponse, NewResponse, Requests};
pub use self::url::{DatabaseUrl, InvalidDatabaseUrl, InvalidRedisUrl, PostgresUrl, RedisUrl};

/// The parts that keep something, all in one database. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) logs: Arc<dyn tidings_notify::Store>,
    pub(crate) streams: Streams,
    pub(crate) webhooks: Arc<dyn tidings_webhooks::Store>,
    pub(crate) presence: Arc<dyn tidings_notify::Presence>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) requests: Arc<dyn Requests>,
    pub(crate) api_keys: Arc<dyn ApiKeyStore>,
    /// How many reads it serves at the same time; others wait behind them.
    pub(crate) reads_at_once: usize,
    /// Keeps imports out until they see that the database is in use.
    starting: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Storage {
    /// Opens the database, creates or migrates its tables, and keeps the data of earlier versions. A file
    /// has no use for Redis.
    pub(crate) async fn open(
        url: &DatabaseUrl,
        redis: Option<Redis>,
    ) -> Result<Self, StorageError> {
        match url {
            DatabaseUrl::Sqlite(path) => sqlite::open(path).await,
            DatabaseUrl::Postgres(url) => postgres::open(url, redis).await,
        }
    }

    /// Finishes what is queued, and refuses later calls. Closing twice is harmless.
    pub(crate) async fn close(&self) {
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
                let postgres = crate::error::find::<tidings_postgres::Error>(&error);
                let sqlite = crate::error::find::<tidings_sqlite::Error>(&error);
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
