use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::support::{
    NEVER, Recorder, contents, extended, from_start, key, number, numbered, recorder,
    some_consumer, streams, subscribe, until,
};
use crate::engine::Engine;
use crate::{Error, Handler, HandlerError, Message, NewMessage, RetryDelay, dead_letter};

/// Records every attempt, then fails it as configured.
fn failing(
    recorder: Recorder,
    error: impl Fn() -> HandlerError + Send + Sync + 'static,
) -> impl Handler {
    let error = Arc::new(error);
    move |message: Message| {
        let (recorder, error) = (recorder.clone(), Arc::clone(&error));
        async move {
            recorder.note(message).await;
            Err(error())
        }
    }
}

/// Calls a function, and keeps when it was called.
fn timed(
    error: impl Fn() -> HandlerError + Send + Sync + 'static,
) -> (
    impl Fn() -> HandlerError + Send + Sync + 'static,
    Arc<Mutex<Vec<Instant>>>,
) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&times);
    let error = move || {
        kept.lock().unwrap().push(Instant::now());
        error()
    };
    (error, times)
}

fn at_once() -> HandlerError {
    HandlerError::retry_after(Duration::ZERO, "again")
}

/// A handler that never ends loses its message to another member, as a second attempt.
pub async fn a_hung_handler_gives_its_message_to_another_member(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (first_recorder, mut first_seen) = recorder();
    let (second_recorder, mut second_seen) = recorder();
    let options = from_start()
        .with_visibility_timeout(Duration::from_secs(1))
        .with_shutdown_timeout(Duration::ZERO);
    let hanging = move |message: Message| {
        let recorder = first_recorder.clone();
        async move {
            recorder.note(message).await;
            std::future::pending::<Result<(), HandlerError>>().await
        }
    };
    let first = subscribe(&streams, "s", "g", options.clone(), hanging).await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(first_seen.next().await.attempt, 1);
    // It must not be the one that gets the message again.
    first.pause();
    let second = subscribe(&streams, "s", "g", options, second_recorder).await;
    assert_eq!(second_seen.next().await.attempt, 2);
    tokio::join!(first.close(), second.close());
    assert!(first_seen.rest().await.is_empty());
    assert!(second_seen.rest().await.is_empty());
}

/// Attempts count 1 to 1 + retries, and then there is one dead letter.
pub async fn a_message_gets_one_attempt_and_its_retries(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    for retries in [0, 1, 2] {
        let stream = format!("s{retries}");
        streams.publish(&stream, NewMessage::new("")).await.unwrap();
        let (recorder, mut seen) = recorder();
        let options = from_start().with_max_retries(retries);
        let consumer = subscribe(&streams, &stream, "g", options, failing(recorder, at_once)).await;
        for attempt in 1..=retries + 1 {
            assert_eq!(seen.next().await.attempt, attempt);
        }
        until(|| async { consumer.stats().dead_lettered == 1 }).await;
        consumer.close().await;
        assert!(seen.rest().await.is_empty());
        let dead = contents(&streams, &format!("{stream}.dead")).await;
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].headers[dead_letter::REASON], "exhausted");
        assert_eq!(
            dead[0].headers[dead_letter::ATTEMPTS],
            (retries + 1).to_string()
        );
    }
}

/// Without a limit a message is tried until it succeeds.
pub async fn unlimited_retries_go_on(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (recorder, mut seen) = recorder();
    let stubborn = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            let attempt = message.attempt;
            recorder.note(message).await;
            if attempt < 20 { Err(at_once()) } else { Ok(()) }
        }
    };
    let options = from_start().with_unlimited_retries();
    let consumer = subscribe(&streams, "s", "g", options, stubborn).await;
    let attempts: Vec<u32> = seen.take(20).await.iter().map(|m| m.attempt).collect();
    assert_eq!(attempts, (1..=20).collect::<Vec<_>>());
    until(|| async { consumer.stats().acknowledged == 1 }).await;
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// A handler that gives up has had its last attempt.
pub async fn skipping_retries_makes_a_dead_letter_at_once(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (recorder, mut seen) = recorder();
    let giving_up = failing(recorder, || HandlerError::skip_retry("hopeless"));
    let options = from_start().with_unlimited_retries();
    let consumer = subscribe(&streams, "s", "g", options, giving_up).await;
    assert_eq!(seen.next().await.attempt, 1);
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
    let dead = contents(&streams, "s.dead").await;
    assert_eq!(dead[0].headers[dead_letter::REASON], "skip");
    assert_eq!(dead[0].headers[dead_letter::ERROR], "hopeless");
}

/// A delay that the handler chooses is kept, whatever the subscription says.
pub async fn a_handler_chooses_its_delay(engine: Arc<dyn Engine>) {
    const DELAY: Duration = Duration::from_millis(150);
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (recorder, mut seen) = recorder();
    let (later, times) = timed(|| HandlerError::retry_after(DELAY, "later"));
    let handler = failing(recorder, later);
    let options = from_start()
        .with_retry_delay(RetryDelay::fixed(NEVER))
        .with_poll_interval(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, handler).await;
    seen.next().await;
    assert_eq!(seen.next().await.attempt, 2);
    consumer.close().await;
    let times = times.lock().unwrap();
    let waited = times[1] - times[0];
    assert!(waited >= DELAY / 2, "{waited:?}");
}

/// An error that names no delay waits as long as the subscription says: by default, as long as the
/// visibility timeout.
pub async fn delays_follow_the_subscription(engine: Arc<dyn Engine>) {
    const DELAY: Duration = Duration::from_millis(300);
    let streams = streams(engine);
    let plain = || HandlerError::retry("again");
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (noting, _seen) = recorder();
    let options = from_start().with_visibility_timeout(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, failing(noting, plain)).await;
    until(|| async { consumer.stats().retried == 1 }).await;
    let waiting = streams.pending("s", "g", None, 10).await.unwrap();
    let due_in = waiting[0].due_in;
    assert!(NEVER / 2 < due_in && due_in <= NEVER, "{due_in:?}");
    consumer.close().await;

    streams.publish("t", NewMessage::new("")).await.unwrap();
    let (noting, mut seen) = recorder();
    let options = from_start().with_retry_delay(RetryDelay::exponential(DELAY, DELAY * 2));
    let (error, times) = timed(plain);
    let consumer = subscribe(&streams, "t", "g", options, failing(noting, error)).await;
    seen.take(3).await;
    consumer.close().await;
    let times = times.lock().unwrap();
    for (begin, delay) in [(0, DELAY), (1, DELAY * 2)] {
        let waited = times[begin + 1] - times[begin];
        assert!(waited >= delay / 2, "{waited:?} after {begin}");
    }
}

/// While a message waits for its next attempt, newer ones are handled.
pub async fn a_message_that_waits_blocks_no_newer_one(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(10)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            let fails = number(&message) == 1;
            recorder.note(message).await;
            if fails {
                return Err(HandlerError::retry_after(NEVER, "later"));
            }
            Ok(())
        }
    };
    let consumer = subscribe(&streams, "s", "g", from_start(), handler).await;
    assert_eq!(seen.numbers(10).await, (1..=10).collect::<Vec<_>>());
    consumer.close().await;
}

/// A handler with time beyond the visibility timeout keeps its message to itself.
pub async fn a_long_handler_keeps_its_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    // Two thirds of it are what the process may stand still for.
    let options = from_start().with_visibility_timeout(Duration::from_secs(5));
    let (slow, mut slow_seen) = recorder();
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let handler = move |message: Message| {
        let (slow, waiting) = (slow.clone(), Arc::clone(&waiting));
        async move {
            waiting.acquire().await?.forget();
            slow.note(message).await;
            Ok(())
        }
    };
    let patient = options.clone().with_handler_timeout(Duration::MAX);
    let first = subscribe(&streams, "s", "g", patient, handler).await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    until(|| async { streams.stats("s").await.unwrap().groups[0].pending == 1 }).await;
    let (other, other_seen) = recorder();
    let second = subscribe(&streams, "s", "g", options, other).await;
    // The claim that it began with has ended then.
    extended(&streams, 4).await;
    gate.add_permits(1);
    assert_eq!(slow_seen.next().await.attempt, 1);
    until(|| async { first.stats().acknowledged == 1 }).await;
    tokio::join!(first.close(), second.close());
    assert!(other_seen.rest().await.is_empty());
    assert!(slow_seen.rest().await.is_empty());
}

/// A handler that has used up its time is dropped, and its message retried.
pub async fn a_handler_past_its_time_is_dropped(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (recorder, mut seen) = recorder();
    let (guard, dropped) = tokio::sync::oneshot::channel::<()>();
    let guard = Mutex::new(Some(guard));
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        let guard = guard.lock().unwrap().take();
        async move {
            recorder.note(message).await;
            std::future::pending::<()>().await;
            drop(guard);
            Ok(())
        }
    };
    let options = from_start()
        .with_max_retries(1)
        .with_handler_timeout(Duration::from_millis(50));
    let consumer = subscribe(&streams, "s", "g", options, handler).await;
    assert_eq!(seen.next().await.attempt, 1);
    super::support::soon(dropped).await.unwrap_err();
    assert_eq!(seen.next().await.attempt, 2);
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.close().await;
    let dead = contents(&streams, "s.dead").await;
    assert_eq!(dead[0].headers[dead_letter::REASON], "poison");
    assert!(dead[0].headers[dead_letter::ERROR].contains("did not finish"));
}

/// A handler that panics harms nothing but its attempt, and its words are kept.
pub async fn a_panic_is_a_failed_attempt(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            assert!(number(&message) != 1, "the number is {}", number(&message));
            recorder.note(message).await;
            Ok(())
        }
    };
    let consumer = subscribe(
        &streams,
        "s",
        "g",
        from_start().with_max_retries(0),
        handler,
    )
    .await;
    assert_eq!(number(&seen.next().await), 2);
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.close().await;
    let dead = contents(&streams, "s.dead").await;
    let error = &dead[0].headers[dead_letter::ERROR];
    assert_eq!(error, "the handler panicked: the number is 1");
}

/// A message whose every claim ended without a reply, as when it kills its process, is a dead
/// letter before it is handled again.
pub async fn a_poison_message_dies_without_another_run(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let key = key(&streams, "s", "g");
    engine
        .open_group(&key, crate::StartFrom::Earliest)
        .await
        .unwrap();
    streams
        .publish("s", NewMessage::new("poison"))
        .await
        .unwrap();
    let visibility = Duration::from_millis(10);
    for attempt in 1..=3 {
        until(|| async {
            let claimed = engine
                .claim(&some_consumer(&key), 1, visibility.into())
                .await
                .unwrap();
            claimed.messages.iter().any(|it| {
                assert_eq!(it.message.attempt, attempt);
                true
            })
        })
        .await;
    }
    let (recorder, seen) = recorder();
    let options = from_start().with_max_retries(2);
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
    let dead = contents(&streams, "s.dead").await;
    assert_eq!(dead[0].payload, "poison");
    assert_eq!(dead[0].headers[dead_letter::REASON], "poison");
    assert_eq!(dead[0].headers[dead_letter::ATTEMPTS], "3");
}

/// A dead letter has its payload and headers as they were, and says where, when and why it died.
pub async fn a_dead_letter_says_where_it_comes_from(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let payload: Vec<u8> = (0..=255).collect();
    let original = NewMessage::new(payload.clone()).with_header("tenant", "a\0b");
    let id = streams.publish("s", original).await.unwrap();
    let (recorder, mut seen) = recorder();
    let long_error = || HandlerError::retry_after(Duration::ZERO, "é".repeat(2000));
    let options = from_start().with_max_retries(1);
    let consumer = subscribe(&streams, "s", "g", options, failing(recorder, long_error)).await;
    let created_at = seen.next().await.created_at;
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.close().await;
    let letter = contents(&streams, "s.dead").await.remove(0);
    assert_eq!(letter.payload, payload);
    assert_eq!(letter.attempt, 1);
    assert_eq!(letter.stream, streams.name("s.dead").unwrap());
    let header = |key: &str| letter.headers[key].as_str();
    assert_eq!(header("tenant"), "a\0b");
    assert_eq!(header(dead_letter::STREAM), "app.default.s");
    assert_eq!(header(dead_letter::GROUP), "g");
    assert_eq!(header(dead_letter::ID), id.to_string());
    assert_eq!(header(dead_letter::ATTEMPTS), "2");
    assert_eq!(header(dead_letter::REASON), "exhausted");
    assert_eq!(header(dead_letter::ERROR), "é".repeat(512));
    assert_eq!(header(dead_letter::FIRST_AT), created_at.to_string());
    assert_eq!(header(dead_letter::CONSUMER), consumer.id());
    let died_at: jiff::Timestamp = header(dead_letter::DEAD_AT).parse().unwrap();
    assert!(died_at >= created_at);
    assert_eq!(letter.headers.len(), 10);
}

/// A dead-letter stream of another name is a stream of that name.
pub async fn dead_letters_go_where_they_are_sent(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (recorder, mut seen) = recorder();
    let graveyard = subscribe(&streams, "graveyard", "g", from_start(), recorder).await;
    let giving_up = |_: Message| async { Err(HandlerError::skip_retry("no")) };
    let options = from_start().with_dead_letter_stream("s");
    let circle = streams.subscribe("s", "g", options, giving_up).await;
    assert!(matches!(
        circle.unwrap_err(),
        Error::InvalidOption {
            field: "dead_letter_stream",
            ..
        }
    ));
    let options = from_start().with_dead_letter_stream("graveyard");
    let consumer = subscribe(&streams, "s", "g", options, giving_up).await;
    assert_eq!(
        seen.next().await.headers[dead_letter::STREAM],
        "app.default.s"
    );
    tokio::join!(consumer.close(), graveyard.close());
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// Dead letters that fail go to `.dead.dead`, with the story of the last death only; revived, a
/// message is what it was.
pub async fn a_dead_letter_may_die_again_and_be_revived(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let original = NewMessage::new("body").with_header("k", "v");
    streams.publish("s", original.clone()).await.unwrap();
    for (stream, error) in [("s", Some("first")), ("s.dead", None)] {
        let giving_up = move |_: Message| async move {
            match error {
                Some(error) => Err(HandlerError::skip_retry(error)),
                None => Err(HandlerError::skip_retry("second")),
            }
        };
        let consumer = subscribe(&streams, stream, "g", from_start(), giving_up).await;
        until(|| async { consumer.stats().dead_lettered == 1 }).await;
        consumer.close().await;
    }
    let letter = contents(&streams, "s.dead.dead").await.remove(0);
    assert_eq!(letter.headers[dead_letter::STREAM], "app.default.s.dead");
    assert_eq!(letter.headers[dead_letter::ERROR], "second");
    assert_eq!(NewMessage::revived(&letter), original);
}

/// Many handlers that fail at the same time lose no dead letter, and copy none.
pub async fn concurrent_dead_letters_all_arrive(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, mut seen) = recorder();
    let graveyard = subscribe(
        &streams,
        "s.dead",
        "g",
        from_start().with_concurrency(8),
        recorder,
    )
    .await;
    let giving_up = |_: Message| async { Err(HandlerError::skip_retry("no")) };
    let options = from_start().with_concurrency(8);
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(subscribe(&streams, "s", "g", options.clone(), giving_up).await);
    }
    streams.publish_batch("s", numbered(200)).await.unwrap();
    let numbers: BTreeSet<u64> = seen.numbers(200).await.into_iter().collect();
    assert_eq!(numbers.len(), 200);
    for consumer in consumers {
        consumer.close().await;
    }
    graveyard.close().await;
    assert!(seen.rest().await.is_empty());
}

/// What a subscription claims, a handler has started on.
pub async fn claims_never_exceed_free_handlers(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(32)).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let handler = {
        let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
        move |_: Message| {
            let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        }
    };
    let options = from_start().with_concurrency(8);
    let consumer = subscribe(&streams, "s", "g", options, handler).await;
    for handled in (0..32).step_by(8) {
        until(|| async { consumer.stats().acknowledged == handled }).await;
        // Only now are those that run all new ones.
        until(|| async { running.load(Ordering::SeqCst) == 8 }).await;
        let group = streams.stats("s").await.unwrap().groups.remove(0);
        assert_eq!((group.pending, group.lag), (8, 24 - handled));
        gate.add_permits(8);
    }
    until(|| async { consumer.stats().acknowledged == 32 }).await;
    assert_eq!(most.load(Ordering::SeqCst), 8);
    let report = consumer.close().await;
    assert_eq!(report, crate::CloseReport::default());
}
