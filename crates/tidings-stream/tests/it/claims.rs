//! How consumers keep their claims, and what becomes of messages whose handlers were not at fault.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tidings_stream::engine::Engine;
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    Error, HandlerError, MemoryEngine, Message, NewMessage, Retention, ServiceConfig, StartFrom,
    Streams, SubscribeOptions,
};
use tokio::sync::mpsc;

use crate::database::{
    NEVER, fresh_engine, from_start, name, next, numbered, recorder, soon, until,
};
use crate::wrapped::{Hook, Wrapped};

/// How long claims last.
const VISIBILITY: Duration = Duration::from_secs(30);

fn without_retries() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_max_retries(0)
        .with_visibility_timeout(VISIBILITY)
}

async fn letters(streams: &Streams) -> u64 {
    streams.stats("s.dead").await.unwrap().messages
}

/// A handler that never ends, and says when it has begun.
fn hanging() -> (impl tidings_stream::Handler, mpsc::Receiver<u32>) {
    let (begun, has_begun) = mpsc::channel(16);
    let handler = move |message: Message| {
        let begun = begun.clone();
        async move {
            begun.send(message.attempt).await?;
            std::future::pending().await
        }
    };
    (handler, has_begun)
}

#[tokio::test]
async fn closing_in_the_last_attempt_makes_no_dead_letter() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (handler, mut begun) = hanging();
    let options = without_retries().with_shutdown_timeout(Duration::ZERO);
    let consumer = streams.subscribe("s", "g", options.clone(), handler).await;
    let consumer = consumer.unwrap();
    soon(begun.recv()).await.unwrap();
    assert_eq!(consumer.close().await.abandoned, 1);

    let (handler, mut seen) = recorder();
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    until(async || consumer.stats().acknowledged + consumer.stats().dead_lettered == 1).await;
    assert_eq!(letters(&streams).await, 0);
    assert_eq!(next(&mut seen).await.unwrap().attempt, 1);
    consumer.close().await;
}

/// Refuses some calls for as long as the test says so.
#[derive(Debug)]
struct Refusing {
    call: &'static str,
    error: fn() -> Error,
    is_on: AtomicBool,
    refused: AtomicU64,
}

impl Refusing {
    fn new(call: &'static str, error: fn() -> Error) -> Self {
        let (is_on, refused) = (AtomicBool::new(true), AtomicU64::new(0));
        Self {
            call,
            error,
            is_on,
            refused,
        }
    }
}

#[async_trait]
impl Hook for Refusing {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if call == self.call && self.is_on.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err((self.error)());
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_extended_in_the_last_attempt_makes_no_dead_letter() {
    let away = || Error::backend(std::io::Error::other("away"));
    let engine = Wrapped::new(Refusing::new("extend", away));
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (handler, mut begun) = hanging();
    let options = without_retries().with_handler_timeout(VISIBILITY * 10);
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    for _ in 0..2 {
        assert_eq!(soon(begun.recv()).await, Some(1));
    }
    consumer.close().await;
    assert_eq!(letters(&streams).await, 0);
}

/// Takes most of the time of its claims.
#[derive(Debug)]
struct SlowClaims(Duration);

#[async_trait]
impl Hook for SlowClaims {
    async fn after(&self, call: &'static str) {
        if call == "claim" {
            tokio::time::sleep(self.0).await;
        }
    }
}

/// What a claim takes of its own time is no time of the handler's.
#[tokio::test(start_paused = true)]
async fn a_handler_has_its_time_after_a_slow_claim() {
    for limit in [None, Some(Duration::from_secs(20))] {
        let engine = Wrapped::new(SlowClaims(VISIBILITY * 5 / 6));
        let streams = Streams::new(engine, ServiceConfig::default());
        streams.publish("s", NewMessage::new("")).await.unwrap();
        let work = |_: Message| async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            Ok(())
        };
        let mut options = without_retries();
        if let Some(limit) = limit {
            options = options.with_handler_timeout(limit);
        }
        let consumer = streams.subscribe("s", "g", options, work).await.unwrap();
        until(async || consumer.stats().acknowledged + consumer.stats().dead_lettered == 1).await;
        consumer.close().await;
        assert_eq!(letters(&streams).await, 0, "{limit:?}");
    }
}

/// What was decided holds although the store has no room to record it for longer than the claim lasts.
#[tokio::test(start_paused = true)]
async fn a_message_whose_dead_letter_waits_for_room_is_not_handled_again() {
    let full = || Error::Full(std::io::Error::other("no room").into());
    let engine = Wrapped::new(Refusing::new("settle", full));
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let handler = move |_: Message| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err(HandlerError::skip_retry("no")) }
    };
    let options = without_retries().with_max_retries(9);
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    tokio::time::sleep(VISIBILITY * 10).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert!(engine.hook.refused.load(Ordering::Relaxed) > 1);
    engine.hook.is_on.store(false, Ordering::Relaxed);
    until(async || consumer.stats().dead_lettered == 1).await;
    consumer.close().await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(letters(&streams).await, 1);
}

/// Counts claims, and ends a loop of them.
#[derive(Debug, Default)]
struct CountedClaims(AtomicU64);

#[async_trait]
impl Hook for CountedClaims {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if call == "claim" && self.0.fetch_add(1, Ordering::Relaxed) > 100 {
            return Err(Error::backend(std::io::Error::other("a loop")));
        }
        Ok(())
    }
}

/// A pull that was polled once and is left alone then leaves its messages to others.
#[tokio::test(start_paused = true)]
async fn a_pull_that_is_polled_no_more_claims_no_more() {
    let engine = Wrapped::new(CountedClaims::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let options = without_retries().with_concurrency(2);
    let mut messages = streams.pull("s", "g", options).await.unwrap();
    let asked = futures_util::poll!(StreamExt::next(&mut messages));
    assert!(asked.is_pending());
    for _ in 0..3 {
        streams.publish("s", NewMessage::new("")).await.unwrap();
    }
    tokio::time::sleep(VISIBILITY * 10).await;
    let claims = engine.hook.0.load(Ordering::Relaxed);
    assert!((1..10).contains(&claims), "{claims}");
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert!(messages.consumer().is_paused(), "{group:?}");
    // They are there when it is polled again.
    for _ in 0..3 {
        let pulled = soon(StreamExt::next(&mut messages)).await.unwrap();
        assert_eq!(pulled.message.attempt, 1);
        pulled.acknowledge().unwrap();
    }
    let consumer = messages.consumer();
    until(async || consumer.stats().acknowledged == 3).await;
}

/// Polling continues when its runtime ends, also for a consumer that waits already.
#[test]
fn polling_outlives_its_runtime_while_a_consumer_waits() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap()
    };
    let engine = Wrapped::losing_wake_ups(CountedClaims::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let first = runtime();
    first.block_on(async { streams.publish("s", NewMessage::new("")).await.unwrap() });
    runtime().block_on(async {
        let options = without_retries().with_poll_interval(Duration::from_millis(10));
        let subscribed = streams.subscribe("s", "g", options, |_| async { Ok(()) });
        let consumer = subscribed.await.unwrap();
        until(async || consumer.stats().acknowledged == 1).await;
        // It asks for a poll of a runtime that does nothing any more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.shutdown_background();
        let (stream, messages) = (name("s"), numbered(1));
        engine.append(&stream, messages, None).await.unwrap();
        until(async || consumer.stats().acknowledged == 2).await;
        consumer.close().await;
    });
}

/// Each message of a batch whose handler does not react counts, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_counts_the_messages_of_handlers_that_block() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    let publishing = streams.publish_batch("s", numbered(3));
    publishing.await.unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let (begun, mut has_begun) = mpsc::channel(1);
    let handler = move |messages: Vec<Message>| {
        let (begun, released) = (begun.clone(), Arc::clone(&released));
        async move {
            begun.send(messages.len()).await?;
            tokio::task::block_in_place(|| released.lock().unwrap().recv()).ok();
            Ok(())
        }
    };
    let options = without_retries().with_shutdown_timeout(Duration::ZERO);
    let consumer = streams.subscribe_batch("s", "g", options, handler).await;
    let consumer = consumer.unwrap();
    assert_eq!(soon(has_begun.recv()).await, Some(3));
    let report = soon(consumer.close()).await;
    drop(release);
    assert_eq!((report.finished, report.abandoned), (0, 3));
}

/// What waits for its ordering key is handled at once when what had the key is trimmed.
async fn trimming_wakes_what_it_frees(engine: Arc<dyn Engine>) {
    let streams = Streams::new(engine, ServiceConfig::default());
    let keyed = |body| NewMessage::new(body).with_ordering_key("key");
    let (pass_on, mut seen) = mpsc::channel(16);
    let handler = move |message: Message| {
        let pass_on = pass_on.clone();
        async move {
            let is_first = message.payload.starts_with(b"first");
            pass_on.send(message).await?;
            if is_first {
                return Err(HandlerError::retry_after(NEVER, "later"));
            }
            Ok(())
        }
    };
    let options = from_start().with_key_order();
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    streams.publish("s", keyed("first")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().payload, "first");
    streams.publish("s", keyed("second")).await.unwrap();
    // It was met, and waits for the other.
    until(async || streams.stats("s").await.unwrap().groups[0].pending == 2).await;
    let bound = Retention::default().with_max_len(1).with_pending_trimmed();
    streams.set_retention("s", bound).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().payload, "second");
    consumer.close().await;
}

#[tokio::test]
async fn trimming_wakes_what_it_frees_in_memory() {
    trimming_wakes_what_it_frees(Arc::new(MemoryEngine::new())).await;
}

#[tokio::test]
async fn trimming_wakes_what_it_frees_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = tidings_sqlite::Options::default();
    let database = tidings_sqlite::Database::open(folder.path().join("test.db"), &options);
    let engine = SqliteEngine::open(database.unwrap()).await.unwrap();
    trimming_wakes_what_it_frees(Arc::new(engine)).await;
}

#[tokio::test]
async fn trimming_wakes_what_it_frees_on_postgres() {
    let (engine, _schema) = fresh_engine().await;
    trimming_wakes_what_it_frees(engine).await;
}

#[tokio::test]
async fn trimming_wakes_what_it_frees_on_redis() {
    trimming_wakes_what_it_frees(Arc::new(crate::redis::engine().await)).await;
}
