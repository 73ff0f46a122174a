//! What breaks between an engine and its store, for every engine. The stores break in the same ways: see
//! [`Outage`](tidings_test_support::Outage).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions};
use tidings_stream::redis::{RedisEngine, RedisOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{Error, Handler, Message, ServiceConfig, Streams};
use tokio::sync::{mpsc, watch};

use crate::database::{NEVER, PATIENT};

mod calls;
mod listening;
mod losses;
mod room;
mod sqlite_outage;

pub(crate) use calls::*;
pub(crate) use listening::*;
pub(crate) use losses::*;
pub(crate) use room::*;
pub(crate) use sqlite_outage::SqliteOutage;

/// How long the engines of these tests wait for a reply, where they may get none: longer than a busy machine may
/// stand still.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(4);

const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// Makes a test of each fault: the outage that it begins with, and how an engine is opened at a URL.
macro_rules! fault_tests {
    ($outage:ty, $open:expr; $($fault:ident $(($difference:expr))?)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fault() {
                let mut outage = <$outage>::start().await.unwrap();
                $crate::faults::$fault(&mut outage, $open $(, $difference)?).await;
            }
        )*
    };
}
pub(crate) use fault_tests;

/// Opens an engine at a URL.
pub(crate) type Open = fn(&str) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>>;

pub(crate) fn postgres(url: &str) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>> {
    let config = tidings_stream::postgres::Config::new(url).unwrap();
    let config = config
        .with_reply_limit(REPLY_LIMIT)
        .with_health_interval(HEALTH_INTERVAL);
    let patient = config.clone().with_reply_limit(PATIENT);
    Box::pin(async {
        // The first one makes the tables, which takes long on a busy machine.
        PostgresEngine::open(patient, PostgresOptions::default()).await?;
        let engine = PostgresEngine::open(config, PostgresOptions::default()).await?;
        Ok(Arc::new(engine) as _)
    })
}

pub(crate) fn redis(url: &str) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>> {
    open_redis(url, HEALTH_INTERVAL)
}

/// One whose calls are sent without a check before them, so that a server that falls silent has received them.
pub(crate) fn unchecked_redis(url: &str) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>> {
    open_redis(url, NEVER)
}

fn open_redis(
    url: &str,
    health_interval: Duration,
) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>> {
    let config = tidings_stream::redis::Config::new(url).unwrap();
    let config = config
        .with_reply_limit(REPLY_LIMIT)
        .with_health_interval(health_interval);
    Box::pin(async {
        let engine = RedisEngine::open(config, RedisOptions::default()).await?;
        Ok(Arc::new(engine) as _)
    })
}

/// The URL is the path of the file. Every engine has connections of its own, like one of another process.
pub(crate) fn sqlite(url: &str) -> BoxFuture<'_, Result<Arc<dyn Engine>, Error>> {
    let database = Database::open(url, &Options::default()).unwrap();
    Box::pin(async { Ok(Arc::new(SqliteEngine::open(database).await?) as _) })
}

async fn streams(open: Open, url: &str) -> Streams {
    Streams::new(open(url).await.unwrap(), ServiceConfig::default())
}

/// Whether a call has failed as it may while the store is broken.
fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Backend(_) | Error::OutcomeUnknown(_))
}

/// Handlers that report when they begin, and wait at a gate before they succeed.
struct Gate {
    gate: watch::Sender<bool>,
    begun: mpsc::Sender<Message>,
}

impl Gate {
    /// A closed gate, and what is begun behind it.
    fn new() -> (Self, mpsc::Receiver<Message>) {
        let (begun, receiver) = mpsc::channel(100);
        let gate = Self {
            gate: watch::Sender::new(false),
            begun,
        };
        (gate, receiver)
    }

    fn handler(&self) -> impl Handler + use<> {
        let (begun, gate) = (self.begun.clone(), self.gate.subscribe());
        move |message: Message| {
            let (begun, mut gate) = (begun.clone(), gate.clone());
            async move {
                begun.send(message).await?;
                gate.wait_for(|is_open| *is_open).await?;
                Ok(())
            }
        }
    }

    fn open(&self) {
        self.gate.send_replace(true);
    }

    fn close(&self) {
        self.gate.send_replace(false);
    }
}
