//! A PostgreSQL schema for one test, and what tests of that engine do with it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_stream::engine::{Engine, GroupKey};
use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions};
use tidings_stream::{
    Context, GroupName, Handler, HandlerError, Message, NewMessage, ServiceConfig, StartFrom,
    StreamName, Streams, SubscribeOptions,
};
pub(crate) use tidings_test_support::connect;
use tokio::sync::mpsc;

/// Longer than any test.
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long engines wait for a reply where they get one: the default is too short for a large call on a busy
/// machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// How long a test waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A schema of its own on the server of `DATABASE_URL`, which goes when it is dropped.
pub(crate) struct Schema(tidings_test_support::Schema);

impl Deref for Schema {
    type Target = tidings_test_support::Schema;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Schema {
    pub(crate) async fn create() -> Self {
        Self(tidings_test_support::Schema::create().await)
    }

    pub(crate) async fn create_on(server: &str) -> Self {
        Self(tidings_test_support::Schema::create_on(server).await)
    }

    pub(crate) fn config(&self) -> Config {
        Config::new(&self.url()).unwrap().with_reply_limit(PATIENT)
    }

    pub(crate) async fn engine(&self) -> PostgresEngine {
        PostgresEngine::open(self.config(), PostgresOptions::default())
            .await
            .unwrap()
    }

    pub(crate) async fn streams(&self) -> Streams {
        Streams::new(Arc::new(self.engine().await), ServiceConfig::default())
    }
}

/// An engine on a schema of its own, for the conformance tests. It has all of its connections: one of
/// the tests counts tasks, and each connection has one.
pub(crate) async fn fresh_engine() -> (Arc<dyn Engine>, Schema) {
    fresh_engine_with(PostgresOptions::default()).await
}

pub(crate) async fn fresh_engine_with(options: PostgresOptions) -> (Arc<dyn Engine>, Schema) {
    let schema = Schema::create().await;
    let engine = warm_engine(&schema, options).await;
    (Arc::new(engine), schema)
}

/// An engine that has all of its connections.
pub(crate) async fn warm_engine(schema: &Schema, options: PostgresOptions) -> PostgresEngine {
    let engine = PostgresEngine::open(schema.config(), options).await;
    let engine = engine.unwrap();
    let key = GroupKey {
        stream: StreamName::new("app", "default", "none").unwrap(),
        group: GroupName::new("none").unwrap(),
    };
    join_all((0..8).map(|_| engine.stats(&key.stream))).await;
    join_all((0..8).map(|_| engine.delete_group(&key))).await;
    engine
}

pub(crate) fn name(stream: &str) -> StreamName {
    StreamName::new("app", "default", stream).unwrap()
}

pub(crate) fn key(stream: &str, group: &str) -> GroupKey {
    GroupKey {
        stream: name(stream),
        group: GroupName::new(group).unwrap(),
    }
}

/// Messages whose payloads are the numbers from 1.
pub(crate) fn numbered(count: u64) -> Vec<NewMessage> {
    (1..=count)
        .map(|number| NewMessage::new(number.to_string()))
        .collect()
}

/// Everything from the start, and by wake-ups alone.
pub(crate) fn from_start() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_poll_interval(Duration::from_secs(24 * 60 * 60))
}

/// Waits for something, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens within a minute")
}

/// Asks again and again until the reply is yes.
pub(crate) async fn until(mut question: impl AsyncFnMut() -> bool) {
    soon(async {
        while !question().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Waits for the next message, but not for ever.
pub(crate) async fn next(seen: &mut mpsc::Receiver<Message>) -> Option<Message> {
    soon(seen.recv()).await
}

/// A handler that acknowledges everything and passes it on.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Message>);

pub(crate) fn recorder() -> (Recorder, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(1 << 14);
    (Recorder(sender), receiver)
}

impl Handler for Recorder {
    async fn handle(&self, message: Message, _: Context) -> Result<(), HandlerError> {
        Ok(self.0.send(message).await?)
    }
}
