//! How consumers treat their engine and their handlers, on an engine that is watched or disturbed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tidings_stream::engine::{ConsumerKey, Engine};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    BatchError, Consumer, Context, EndReason, Error, HandlerError, InvalidName, MemoryEngine,
    Message, NewMessage, Retention, ServiceConfig, StartFrom, Streams, SubscribeOptions,
    dead_letter, telemetry, with_context,
};
use tidings_test_support::{CallsBack, Log};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::database::{Schema, key, next, numbered, recorder, soon, until};
use crate::wrapped::{Hook, Wrapped};

fn from_start() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_poll_interval(Duration::from_millis(20))
}

fn streams(engine: Arc<dyn Engine>) -> Streams {
    Streams::new(engine, ServiceConfig::default())
}

/// The largest call of `settle`, and whether settlements that include many messages fail.
#[derive(Debug, Default)]
struct Settles {
    most: AtomicUsize,
}

#[async_trait]
impl Hook for Settles {
    async fn before(&self, call: &'static str, messages: usize) -> Result<(), Error> {
        if call == "settle" {
            self.most.fetch_max(messages, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// However many messages fail at the same time, one call to the store ends a bounded number of claims.
#[tokio::test(start_paused = true)]
async fn regression_ends_are_recorded_in_bounded_batches() {
    let engine = Wrapped::new(Settles::default());
    let streams = streams(engine.clone());
    for _ in 0..64 {
        streams.publish_batch("s", numbered(1000)).await.unwrap();
    }
    let fail = |_: Vec<Message>| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err::<(), BatchError>(HandlerError::retry_after(Duration::from_secs(3600), "no").into())
    };
    let options = from_start().with_max_batch(1000).with_concurrency(64);
    let consumer = streams
        .subscribe_batch("s", "g", options, fail)
        .await
        .unwrap();
    until(async || consumer.stats().retried == 64_000).await;
    let most = engine.hook.most.load(Ordering::Relaxed);
    assert!((2..=1000).contains(&most), "{most}");
    consumer.close().await;
}

/// Claims that ended before the dead letter was recorded, as with their process, are no attempts.
#[tokio::test(start_paused = true)]
async fn regression_a_dead_letter_counts_no_attempt_that_was_not_made() {
    let engine = MemoryEngine::new();
    let streams = streams(Arc::new(engine.clone()));
    let claimant = ConsumerKey {
        group: key("s", "g"),
        consumer: "gone".into(),
    };
    let opening = engine.open_group(&claimant.group, StartFrom::Earliest);
    opening.await.unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let visibility = Duration::from_millis(10);
    for _ in 0..6 {
        let claimed = engine.claim(&claimant, 1, visibility.into()).await.unwrap();
        assert_eq!(claimed.messages.len(), 1);
        tokio::time::sleep(visibility * 2).await;
    }
    let handler = |_: Message| async { Err(HandlerError::retry("no handler gets it")) };
    let options = from_start().with_max_retries(3);
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    until(async || consumer.stats().dead_lettered == 1).await;
    let letters = streams.read("s.dead", None, 10).await.unwrap();
    assert_eq!(letters[0].headers[dead_letter::ATTEMPTS], *"4");
    assert_eq!(consumer.stats().retried, 0);
}

/// What has expired and is kept for a group is not counted with each publish.
#[tokio::test]
async fn regression_what_a_slow_group_keeps_costs_a_publisher_nothing() {
    let engine = MemoryEngine::new();
    let aged = Retention::default().with_max_age(Duration::from_millis(1));
    let mut fastest = [Duration::MAX; 2];
    for (place, kept) in [(0, 10), (1, 200_000)] {
        let key = key(&format!("kept{kept}"), "g");
        engine.open_group(&key, StartFrom::Earliest).await.unwrap();
        let append = async |count| {
            let appending = engine.append(&key.stream, numbered(count), Some(aged));
            appending.await.unwrap();
        };
        append(kept).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..100 {
                append(1).await;
            }
            fastest[place] = fastest[place].min(begun.elapsed());
        }
        let messages = engine.stats(&key.stream).await.unwrap().messages;
        assert_eq!(messages, kept + 500);
    }
    assert!(fastest[1] < fastest[0] * 10, "{fastest:?}");
}

/// Never extends a claim.
#[derive(Debug)]
struct StuckExtend;

#[async_trait]
impl Hook for StuckExtend {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if call == "extend" {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// A handler does not outlive its claim because the store does not reply, and its message does not die
/// of that.
#[tokio::test(start_paused = true)]
async fn regression_a_handler_ends_before_its_claim_when_the_store_hangs() {
    let streams = streams(Wrapped::new(StuckExtend));
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (begun, mut times) = tokio::sync::mpsc::channel(16);
    let handler = move |message: Message| {
        let begun = begun.clone();
        async move {
            begun.send((message.attempt, Instant::now())).await?;
            if message.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    };
    let options = from_start()
        .with_max_retries(1)
        .with_visibility_timeout(Duration::from_secs(30))
        .with_handler_timeout(Duration::from_secs(600));
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    let (first, begun) = times.recv().await.unwrap();
    let (second, again) = times.recv().await.unwrap();
    assert_eq!((first, second), (1, 2));
    assert!(
        again - begun < Duration::from_secs(30),
        "{:?}",
        again - begun
    );
    until(async || consumer.stats().acknowledged == 1).await;
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// Does not reply to some calls any more, once the test says so.
#[derive(Debug)]
struct Silent {
    calls: &'static [&'static str],
    begun: AtomicBool,
    called: Notify,
}

#[async_trait]
impl Hook for Silent {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if self.begun.load(Ordering::Relaxed) && self.calls.contains(&call) {
            self.called.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Closing ends in its time although the store does not reply to a claim, to an end or to the last check-in.
#[tokio::test(start_paused = true)]
async fn regression_closing_ends_in_time_whatever_the_store_does() {
    let timeout = Duration::from_secs(5);
    for calls in [
        &["claim"][..],
        &["settle"],
        &["check_in"],
        &["claim", "settle", "extend", "check_in", "ready"],
    ] {
        let engine = Wrapped::new(Silent {
            calls,
            begun: AtomicBool::new(false),
            called: Notify::new(),
        });
        let streams = streams(engine.clone());
        streams.publish("s", NewMessage::new("")).await.unwrap();
        let (begun, mut handlers) = tokio::sync::mpsc::channel(16);
        let handler = with_context(move |message: Message, context: Context| {
            let begun = begun.clone();
            async move {
                begun.send(message.id).await?;
                context.closing().cancelled().await;
                Ok(())
            }
        });
        let options = from_start()
            .with_concurrency(2)
            .with_shutdown_timeout(timeout);
        let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
        handlers.recv().await.unwrap();
        engine.hook.begun.store(true, Ordering::Relaxed);
        if calls.contains(&"claim") {
            streams.publish("s", NewMessage::new("")).await.unwrap();
            engine.hook.called.notified().await;
        }
        let closing = Instant::now();
        let report = soon(consumer.close()).await;
        let took = closing.elapsed();
        assert!(
            took <= timeout + Duration::from_secs(4),
            "{calls:?}: {took:?}"
        );
        let is_recorded = !calls.contains(&"settle");
        assert_eq!(
            (report.finished == 1, report.abandoned),
            (is_recorded, u64::from(!is_recorded))
        );
        // What was handled and not recorded comes again when its claim has expired.
        engine.hook.begun.store(false, Ordering::Relaxed);
        let (pass_on, mut seen) = recorder();
        let again = streams.subscribe("s", "g", from_start(), pass_on).await;
        let again = again.unwrap();
        if !is_recorded {
            let mut message = next(&mut seen).await.unwrap();
            while message.id.as_u64() != 1 {
                message = next(&mut seen).await.unwrap();
            }
            assert_eq!(message.attempt, 2);
        }
        again.close().await;
    }
}

/// Counts claims that take longer than they last.
#[derive(Debug, Default)]
struct SlowClaims {
    claims: AtomicU64,
}

#[async_trait]
impl Hook for SlowClaims {
    async fn after(&self, call: &'static str) {
        if call == "claim" {
            self.claims.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Claims that expire on their way are not made again without a pause.
#[tokio::test(start_paused = true)]
async fn regression_claims_that_take_longer_than_they_last_are_no_loop() {
    let engine = Wrapped::new(SlowClaims::default());
    let streams = streams(engine.clone());
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let options = from_start().with_visibility_timeout(Duration::from_millis(10));
    let consumer = streams
        .subscribe("s", "g", options, |_| async { Ok(()) })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let claims = engine.hook.claims.load(Ordering::Relaxed);
    assert!((2..60).contains(&claims), "{claims}");
    consumer.close().await;
}

/// Blocks its thread for longer than its claim lasts, and succeeds.
fn blocking(runs: Arc<AtomicU64>, time: Duration) -> impl tidings_stream::Handler {
    move |_: Message| {
        let runs = Arc::clone(&runs);
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            let (_sender, never) = mpsc::channel::<()>();
            let blocked = never.recv_timeout(time);
            assert!(blocked.is_err());
            Ok(())
        }
    }
}

async fn a_handler_that_blocks_and_succeeds_is_not_poison(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let runs = Arc::new(AtomicU64::new(0));
    let options = from_start()
        .with_max_retries(0)
        .with_concurrency(2)
        .with_visibility_timeout(Duration::from_millis(500));
    let handler = blocking(Arc::clone(&runs), Duration::from_millis(1500));
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    for _ in 0..3 {
        streams.publish("s", NewMessage::new("")).await.unwrap();
    }
    until(async || consumer.stats().acknowledged == 3).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

#[tokio::test]
async fn regression_a_handler_that_blocks_the_only_thread_is_not_poison() {
    a_handler_that_blocks_and_succeeds_is_not_poison(Arc::new(MemoryEngine::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_a_handler_that_blocks_a_thread_is_not_poison() {
    a_handler_that_blocks_and_succeeds_is_not_poison(Arc::new(MemoryEngine::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_a_handler_that_blocks_a_thread_is_not_poison_on_postgres() {
    let schema = Schema::create().await;
    a_handler_that_blocks_and_succeeds_is_not_poison(Arc::new(schema.engine().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_a_handler_that_blocks_a_thread_is_not_poison_on_redis() {
    a_handler_that_blocks_and_succeeds_is_not_poison(Arc::new(crate::redis::engine().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_a_handler_that_blocks_a_thread_is_not_poison_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let database = tidings_sqlite::Database::open(
        folder.path().join("test.db"),
        &tidings_sqlite::Options::default(),
    );
    let engine = SqliteEngine::open(database.unwrap()).await.unwrap();
    a_handler_that_blocks_and_succeeds_is_not_poison(Arc::new(engine)).await;
}

/// However often a claim must be extended for a handler that blocks its thread, no other member gets its
/// message.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_the_claim_of_a_handler_that_blocks_is_extended_again_and_again() {
    let streams = streams(Arc::new(MemoryEngine::new()));
    let runs = Arc::new(AtomicU64::new(0));
    let options = from_start().with_visibility_timeout(Duration::from_secs(1));
    let subscribe = async || {
        let handler = blocking(Arc::clone(&runs), Duration::from_secs(4));
        let subscribing = streams.subscribe("s", "g", options.clone(), handler);
        subscribing.await.unwrap()
    };
    let consumer = subscribe().await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    until(async || runs.load(Ordering::SeqCst) == 1).await;
    let other = subscribe().await;
    until(async || consumer.stats().acknowledged == 1).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    consumer.close().await;
    other.close().await;
}

/// Lets a claim expire under a handler, and the handler return while its message is claimed again.
#[derive(Debug)]
struct LateReturn {
    /// The store that it is around.
    store: MemoryEngine,
    handler: Mutex<Option<mpsc::Sender<()>>>,
    refused: Notify,
}

impl LateReturn {
    async fn is_claimed_again(&self) -> bool {
        let pending = self.store.pending(&key("s", "g"), None, 1).await.unwrap();
        pending.iter().any(|message| message.attempts == 2)
    }
}

#[async_trait]
impl Hook for LateReturn {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if call == "extend" {
            return Err(Error::backend(std::io::Error::other(
                "no claim is extended",
            )));
        }
        Ok(())
    }

    async fn after(&self, call: &'static str) {
        match call {
            "claim" if self.is_claimed_again().await => {
                let handler = self.handler.lock().unwrap().take();
                if let Some(handler) = handler {
                    handler.send(()).unwrap();
                    // Its end came with the old receipt.
                    self.refused.notified().await;
                }
            }
            "settle" => self.refused.notify_one(),
            _ => {}
        }
    }
}

/// What a handler has decided too late holds, although its message was claimed again at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn regression_a_handler_that_returns_while_its_message_is_claimed_again_has_handled_it() {
    let (sender, receiver) = mpsc::channel();
    let store = MemoryEngine::new();
    let hook = LateReturn {
        store: store.clone(),
        handler: Mutex::new(Some(sender)),
        refused: Notify::new(),
    };
    let engine = Wrapped::around(store, hook);
    let streams = streams(engine);
    let runs = Arc::new(AtomicU64::new(0));
    let receiver = Arc::new(Mutex::new(receiver));
    let handler = {
        let runs = Arc::clone(&runs);
        move |_: Message| {
            let (runs, receiver) = (Arc::clone(&runs), Arc::clone(&receiver));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                // The runtime continues beside it, timers included.
                tokio::task::block_in_place(|| receiver.lock().unwrap().recv())?;
                Ok(())
            }
        }
    };
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let options = from_start()
        .with_max_retries(0)
        .with_concurrency(2)
        .with_visibility_timeout(Duration::from_millis(500));
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    until(async || consumer.stats().stale == 1).await;
    until(async || {
        let group = streams.stats("s").await.unwrap().groups.remove(0);
        (group.lag, group.pending) == (0, 0)
    })
    .await;
    consumer.close().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// A stream whose dead letters would have a name that no call accepts is not subscribed to.
#[tokio::test]
async fn regression_a_name_without_room_for_its_dead_letters_is_refused() {
    let streams = streams(Arc::new(MemoryEngine::new()));
    let long = "x".repeat(253);
    streams.publish(&long, NewMessage::new("")).await.unwrap();
    let subscribed = streams.subscribe(&long, "g", from_start(), |_| async { Ok(()) });
    let refused = subscribed.await.unwrap_err();
    let Error::InvalidName { source, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(source, InvalidName::TooLong { length: 258 });
    let options = from_start().with_dead_letter_stream("letters");
    let bury = |_| async { Err(HandlerError::skip_retry("no")) };
    let consumer = streams.subscribe(&long, "g", options, bury).await.unwrap();
    until(async || consumer.stats().dead_lettered == 1).await;
    consumer.close().await;
    let letters = streams.read("letters", None, 10).await.unwrap();
    assert!(letters[0].headers[dead_letter::STREAM].ends_with(&long));
}

/// Housekeeping continues when the runtime of the first call has ended.
#[test]
fn regression_polling_outlives_the_runtime_of_the_first_call() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let streams = streams(Wrapped::losing_wake_ups(Settles::default()));
    let first = runtime();
    first.block_on(async { streams.publish("s", NewMessage::new("")).await.unwrap() });
    drop(first);
    runtime().block_on(async {
        let options = SubscribeOptions::default().with_poll_interval(Duration::from_millis(10));
        let subscribed = streams.subscribe("s", "g", options, |_| async { Ok(()) });
        let consumer = subscribed.await.unwrap();
        // The consumer waits, and nothing but a poll finds the message.
        tokio::time::sleep(Duration::from_millis(100)).await;
        streams.publish("s", NewMessage::new("")).await.unwrap();
        until(async || consumer.stats().acknowledged == 1).await;
        consumer.close().await;
    });
}

/// A group that is gone ends its consumers, and the program can wait for that.
#[tokio::test]
async fn a_consumer_whose_group_is_gone_ends_and_says_so() {
    let streams = streams(Arc::new(MemoryEngine::new()));
    let subscribed = streams.subscribe("s", "g", from_start(), |_| async { Ok(()) });
    let consumer = subscribed.await.unwrap();
    assert!(streams.delete_group("s", "g").await.unwrap());
    let ended = soon(consumer.ended()).await;
    assert!(matches!(
        ended.reason,
        EndReason::Failed(Error::UnknownGroup)
    ));
    assert_eq!(consumer.close().await, ended.report);

    let subscribed = streams.subscribe("s", "g", from_start(), |_| async { Ok(()) });
    let consumer = subscribed.await.unwrap();
    streams.close().await;
    let ended = soon(consumer.ended()).await;
    assert!(matches!(ended.reason, EndReason::Closed));
}

/// A handler that wants to know learns that closing has begun, and may end in its own way.
#[tokio::test]
async fn a_handler_sees_that_closing_has_begun() {
    let streams = streams(Arc::new(MemoryEngine::new()));
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (begun, mut running) = tokio::sync::mpsc::channel(1);
    let handler = with_context(move |_: Message, context: Context| {
        let begun = begun.clone();
        async move {
            begun.send(context.closing().is_cancelled()).await?;
            context.closing().cancelled().await;
            Err(HandlerError::retry("saved, and to be continued"))
        }
    });
    let consumer = streams
        .subscribe("s", "g", from_start(), handler)
        .await
        .unwrap();
    assert_eq!(soon(running.recv()).await, Some(false));
    let report = soon(consumer.close()).await;
    assert_eq!((report.finished, report.abandoned), (1, 0));
    assert_eq!(consumer.stats().retried, 1);
}

/// Each call of a handler runs in a span that says what it is for.
#[tokio::test]
async fn a_handler_runs_in_a_span_of_its_message() {
    let log = Log::default();
    let _listening = log.listen();
    let streams = streams(Arc::new(MemoryEngine::new()));
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let handler = |message: Message| async move {
        tracing::info!("it is handled");
        match message.attempt {
            1 => Err(HandlerError::retry_after(Duration::ZERO, "again")),
            _ => Ok(()),
        }
    };
    let consumer = streams
        .subscribe("s", "g", from_start(), handler)
        .await
        .unwrap();
    until(async || consumer.stats().acknowledged == 2).await;
    consumer.close().await;
    let lines = log.lines("it is handled");
    assert_eq!(lines.len(), 4);
    for (id, attempt) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let fields = [
            "process{".to_owned(),
            "messaging.destination.name=app.default.s ".to_owned(),
            "messaging.consumer.group.name=g ".to_owned(),
            format!("messaging.message.id={id} "),
            format!("tidings.stream.attempt={attempt}}}"),
        ];
        let has_all = |line: &&String| fields.iter().all(|field| line.contains(field));
        assert_eq!(lines.iter().filter(has_all).count(), 1, "{lines:#?}");
    }
}

#[test]
fn a_recorder_may_use_the_streams_that_it_records() {
    let recorded = CallsBack::during(async |recorder| {
        let streams = streams(Arc::new(MemoryEngine::new()));
        let consumer = Arc::new(OnceLock::<Consumer>::new());
        let (caller, consuming) = (streams.clone(), Arc::clone(&consumer));
        recorder.call(move || {
            let published = caller.publish("other", NewMessage::new(""));
            published
                .now_or_never()
                .expect("it waits for nothing")
                .unwrap();
            if let Some(consumer) = consuming.get() {
                consumer.stats();
                consumer.pause();
                consumer.resume();
            }
        });
        let handler = |message: Message| async move {
            match (&*message.payload, message.attempt) {
                (b"2", _) => Err(HandlerError::skip_retry("no")),
                (b"3", 1) => Err(HandlerError::retry_after(Duration::ZERO, "again")),
                _ => Ok(()),
            }
        };
        let subscribed = streams.subscribe("s", "g", from_start(), handler).await;
        let consumer = consumer.get_or_init(|| subscribed.unwrap());
        streams.publish_batch("s", numbered(3)).await.unwrap();
        until(async || consumer.stats().acknowledged == 2).await;
        until(async || consumer.stats().dead_lettered == 1).await;
        streams.close().await;
    });
    let all = [
        telemetry::PROCESS_DURATION,
        telemetry::SENT,
        telemetry::SETTLED,
    ];
    assert_eq!(recorded, all.map(str::to_owned).into());
}

/// A recorder of metrics that panics whenever something is counted.
#[derive(Debug)]
struct Panics;

impl metrics::Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        panic!("as the test wants")
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("as the test wants")
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("as the test wants")
    }
}

/// A recorder that panics costs figures, and no message another attempt.
#[tokio::test]
async fn a_recorder_of_metrics_that_panics_harms_no_message() {
    let _recording = metrics::set_default_local_recorder(&Panics);
    let streams = streams(Arc::new(MemoryEngine::new()));
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let handler = move |_: Message| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    };
    let subscribed = streams.subscribe("s", "g", from_start(), handler);
    let consumer = subscribed.await.unwrap();
    until(async || consumer.stats().acknowledged == 3).await;
    consumer.close().await;
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.pending, group.lag), (0, 0));
}

/// What is published, handled and settled is counted, by stream and group.
#[test]
fn metrics_count_what_happens() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let streams = streams(Arc::new(MemoryEngine::new()));
            streams.publish_batch("s", numbered(3)).await.unwrap();
            let handler = |message: Message| async move {
                match &*message.payload {
                    b"2" => Err(HandlerError::skip_retry("no")),
                    _ => Ok(()),
                }
            };
            let consumer = streams
                .subscribe("s", "g", from_start(), handler)
                .await
                .unwrap();
            until(async || consumer.stats().acknowledged == 2).await;
            until(async || consumer.stats().dead_lettered == 1).await;
            consumer.close().await;
        });
    });
    let seen = Mutex::new(Vec::new());
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<_> = key
            .labels()
            .map(|it| format!("{}={}", it.key(), it.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => continue,
        };
        seen.lock()
            .unwrap()
            .push((key.name().to_owned(), labels.join(","), value));
    }
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    let place = format!("{}=app.default.s,{}=g", telemetry::STREAM, telemetry::GROUP);
    let with = |label: &str, value: &str| format!("{place},{label}={value}");
    let settled =
        |outcome: &str, count| (telemetry::SETTLED, with(telemetry::OUTCOME, outcome), count);
    let expected = [
        (
            telemetry::SENT,
            format!("{}=app.default.s", telemetry::STREAM),
            3,
        ),
        (telemetry::PROCESS_DURATION, place.clone(), 2),
        (
            telemetry::PROCESS_DURATION,
            with(telemetry::ERROR_TYPE, "handler"),
            1,
        ),
        settled("acknowledged", 2),
        settled("dead_lettered", 1),
        // They begin at zero.
        settled("released", 0),
        settled("retried", 0),
        settled("stale", 0),
    ];
    let expected = expected.map(|(name, labels, count)| (name.to_owned(), labels, count));
    assert_eq!(seen, expected);
}

/// A handler's span has the trace in which its message was published, also after it died.
#[tokio::test]
async fn handlers_continue_the_trace_of_their_message() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let log = Log::default();
    let _listening = log.listen();
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    let traced = NewMessage::new("").with_traceparent(TRACE);
    let messages = vec![traced, NewMessage::new("")];
    streams.publish_batch("s", messages).await.unwrap();
    let bury = |message: Message| async move {
        tracing::info!("burying {}", message.id);
        Err(HandlerError::skip_retry("never"))
    };
    let consumer = streams
        .subscribe("s", "g", from_start(), bury)
        .await
        .unwrap();
    let dig = |message: Message| async move {
        tracing::info!("digging {}", message.id);
        Ok(())
    };
    let digger = streams
        .subscribe("s.dead", "g", from_start(), dig)
        .await
        .unwrap();
    until(async || digger.stats().acknowledged == 2).await;
    for done in ["burying", "digging"] {
        let lines = log.lines(done);
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert_eq!(line.contains(TRACE), line.ends_with('1'), "{line}");
        }
    }
    consumer.close().await;
    digger.close().await;
}

/// What comes later is for others.
#[tokio::test(start_paused = true)]
async fn a_pull_that_was_asked_in_vain_claims_nothing() {
    let streams = streams(Arc::new(MemoryEngine::new()));
    let mut messages = streams.pull("s", "g", from_start()).await.unwrap();
    let asking = tokio::time::timeout(Duration::from_secs(1), messages.next());
    assert!(asking.await.is_err());
    streams.publish("s", NewMessage::new("")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.lag, group.pending), (1, 0));
    // It is there when the pull is asked again.
    let pulled = soon(messages.next()).await.unwrap();
    pulled.acknowledge().unwrap();
    let consumer = messages.consumer();
    until(async || consumer.stats().acknowledged == 1).await;
    assert_eq!(consumer.stats().released, 0);
}
