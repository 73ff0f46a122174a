//! What the server keeps, and where.

mod url;

use std::sync::Arc;

use tidings_notify::Notifier;
use tidings_notify::sqlite::SqliteStore;
use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{ServiceConfig, Streams};

pub use self::url::{DatabaseUrl, InvalidDatabaseUrl};

use crate::{deliveries, endpoints, health, idempotency};

/// The parts that keep something, all in one database.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) database: Database,
    pub(crate) notifier: Notifier,
    pub(crate) streams: Streams,
}

impl Storage {
    pub(crate) async fn open(
        url: &DatabaseUrl,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let DatabaseUrl::Sqlite(path) = url;
        let database = Database::open(path, &Options::default().with_exclusive_lock())?;
        database.migrate("endpoints", endpoints::SCHEMA).await?;
        database.migrate("deliveries", deliveries::SCHEMA).await?;
        database.migrate("idempotency", idempotency::SCHEMA).await?;
        database.migrate("readiness", health::SCHEMA).await?;
        let store = SqliteStore::open(database.clone()).await?;
        let engine = SqliteEngine::open(database.clone()).await?;
        Ok(Self {
            database,
            notifier: Notifier::builder(Arc::new(store)).build(),
            streams: Streams::new(Arc::new(engine), ServiceConfig::default()),
        })
    }
}
