//! What the tests share: an application with its own file, and stores that are watched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidings::signing::Secret;
use tidings_notify::{EventType, Payload, UserId};
use tidings_sqlite::Database;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions as EngineOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{ServiceConfig, Streams};
use tidings_test_support::{Receiver, Schema, Script};
use tidings_webhooks::postgres::{PostgresOptions, PostgresStore};
use tidings_webhooks::sqlite::SqliteStore;
use tidings_webhooks::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, DeliveryState, Endpoint, EndpointId,
    EndpointSettings, NewEndpoint, Options, Owner, Store, WebhookEvent, Webhooks,
};

/// Longest wait for what is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// One instance of an application.
#[derive(Debug)]
pub(crate) struct App {
    /// The file, unless it is on PostgreSQL.
    pub(crate) database: Option<Database>,
    pub(crate) streams: Streams,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) webhooks: Webhooks,
}

/// A file for an application.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    pub(crate) async fn start(&self, options: Options) -> App {
        start(&self.file(), options, |store| store).await
    }
}

/// Starts an instance whose store is wrapped.
pub(crate) async fn start(
    file: &Path,
    options: Options,
    wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> App {
    let database = Database::open(file, &tidings_sqlite::Options::default()).unwrap();
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let store = wrap(Arc::new(SqliteStore::open(database.clone()).await.unwrap()));
    let webhooks = Webhooks::start(Arc::clone(&store), streams.clone(), options)
        .await
        .unwrap();
    App {
        database: Some(database),
        streams,
        store,
        webhooks,
    }
}

/// Where a connection finds its tables in a schema.
pub(crate) fn config(schema: &Schema) -> tidings_postgres::Config {
    tidings_postgres::Config::new(&schema.url()).unwrap()
}

/// A store in a schema.
pub(crate) async fn store(schema: &Schema) -> PostgresStore {
    let store = PostgresStore::open(config(schema), PostgresOptions::default());
    store.await.unwrap()
}

/// Starts an instance on PostgreSQL.
pub(crate) async fn start_on_postgres(schema: &Schema, options: Options) -> App {
    let engine = PostgresEngine::open(config(schema), EngineOptions::default());
    let streams = Streams::new(Arc::new(engine.await.unwrap()), ServiceConfig::default());
    let store: Arc<dyn Store> = Arc::new(store(schema).await);
    let webhooks = Webhooks::start(Arc::clone(&store), streams.clone(), options)
        .await
        .unwrap();
    App {
        database: None,
        streams,
        store,
        webhooks,
    }
}

/// A receiver that does this.
pub(crate) async fn receiver_of(script: impl Into<Script>) -> Receiver {
    Receiver::start(script).await.unwrap()
}

/// Options with these waits in milliseconds.
pub(crate) fn schedule(waits: &[u64]) -> Options {
    let waits = waits.iter().copied().map(Duration::from_millis);
    Options::default()
        .with_schedule(waits)
        .with_poll_interval(Duration::from_millis(100))
}

impl App {
    /// An endpoint of the operator.
    pub(crate) async fn endpoint(&self, url: String) -> EndpointId {
        self.create(EndpointSettings::new(url)).await.0.id
    }

    pub(crate) async fn create(&self, settings: EndpointSettings) -> (Endpoint, Secret) {
        let new = NewEndpoint::new(Owner::Operator, settings);
        self.webhooks.create_endpoint(new).await.unwrap()
    }

    pub(crate) async fn accept(&self, numbers: std::ops::Range<usize>) {
        let events = numbers.map(event).collect();
        self.webhooks.accept(events).await.unwrap();
    }

    /// Waits until an endpoint has so many deliveries in a state, and returns them, oldest first.
    pub(crate) async fn until(
        &self,
        endpoint: EndpointId,
        state: DeliveryState,
        count: usize,
    ) -> Vec<Delivery> {
        let query = DeliveryQuery::newest(100_000).to(endpoint).in_state(state);
        soon(async {
            loop {
                let mut found = self.webhooks.deliveries(&query).await.unwrap();
                if found.len() >= count {
                    found.reverse();
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// The attempts of a delivery that there is.
    pub(crate) async fn attempts(&self, delivery: DeliveryId) -> Vec<AttemptRecord> {
        let attempts = self.webhooks.attempts(delivery).await.unwrap();
        attempts.unwrap()
    }

    pub(crate) async fn stop(self) {
        let report = self.webhooks.stop_within(Duration::from_secs(10)).await;
        assert_eq!(report.unwritten_outcomes, 0);
        drop(self.webhooks);
        drop(self.streams);
        drop(self.store);
        if let Some(database) = self.database {
            database.close().await;
        }
    }
}

/// An event with a number.
pub(crate) fn event(number: usize) -> WebhookEvent {
    let payload = Payload::from_value(&serde_json::json!({ "n": number })).unwrap();
    WebhookEvent::new(&EventType::new("order.paid").unwrap(), payload)
        .with_id(format!("event-{number}"))
        .unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Waits for something, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens within a minute")
}

/// The numbers of the events that a receiver got, in order.
pub(crate) fn numbers(receiver: &Receiver) -> Vec<usize> {
    let number = |request: &tidings_test_support::Request| {
        let id = request.header("webhook-id").unwrap();
        id.strip_prefix("event-").unwrap().parse().unwrap()
    };
    receiver.requests().iter().map(number).collect()
}
