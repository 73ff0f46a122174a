//! Bringing dead letters back, on an engine that is watched or disturbed.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::engine::{ConsumerKey, Engine};
use tidings_stream::{
    Error, HandlerError, InvalidName, MemoryEngine, Message, NewMessage, Redrive, ServiceConfig,
    StartFrom, Streams, SubscribeOptions,
};
use tokio::time::Instant;

use crate::database::{key, numbered};
use crate::wrapped::{Hook, Wrapped};

const VISIBILITY: Duration = Duration::from_secs(30);

/// Takes as long for the first settlement as the claims of another redrive last.
#[derive(Debug, Default)]
struct SlowSettle {
    is_over: AtomicBool,
}

#[async_trait]
impl Hook for SlowSettle {
    async fn after(&self, call: &'static str) {
        if call == "settle" && !self.is_over.swap(true, Ordering::Relaxed) {
            tokio::time::sleep(VISIBILITY).await;
        }
    }
}

/// Letters that another redrive had claimed when it crashed come after the newest one: that one is not
/// the end.
#[tokio::test(start_paused = true)]
async fn regression_a_redrive_brings_what_a_crashed_one_had_claimed() {
    let engine = Wrapped::new(SlowSettle::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    streams
        .publish_batch("s.dead", numbered(150))
        .await
        .unwrap();
    let crashed = ConsumerKey {
        group: key("s.dead", "tidings.redrive"),
        consumer: "crashed".into(),
    };
    let opening = engine.open_group(&crashed.group, StartFrom::Earliest);
    opening.await.unwrap();
    let claimed = engine
        .claim(&crashed, 100, VISIBILITY.into())
        .await
        .unwrap();
    assert_eq!(claimed.messages.len(), 100);

    let redrive = Redrive::default().with_target("t");
    let redriven = streams.redrive("s.dead", redrive).await.unwrap();
    assert_eq!(redriven.moved, 150);
    assert_eq!(streams.stats("t").await.unwrap().messages, 150);
}

/// A subscriber in the group that remembers what was brought back would take letters from it.
#[tokio::test]
async fn regression_groups_of_the_package_take_no_subscribers() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    let is_reserved = |error: &Error| {
        let source = InvalidName::Reserved;
        matches!(error, Error::InvalidName { field: "group", source: it } if *it == source)
    };
    for group in ["tidings.redrive", "tidings.", "tidings.later"] {
        let handler = |_: Message| async { Ok(()) };
        let subscribing = streams.subscribe("s", group, SubscribeOptions::default(), handler);
        let error = subscribing.await.unwrap_err();
        assert!(is_reserved(&error), "{error:?}");
        let creating = streams.create_group("s", group, StartFrom::Latest);
        let error = creating.await.unwrap_err();
        assert!(is_reserved(&error), "{error:?}");
    }
    assert!(streams.list().await.unwrap().is_empty());
    let creating = streams.create_group("s", "tidings", StartFrom::Latest);
    creating.await.unwrap();
}

/// Has a message that cannot be read.
#[derive(Debug)]
struct Unreadable;

#[async_trait]
impl Hook for Unreadable {
    async fn before(&self, call: &'static str, _messages: usize) -> Result<(), Error> {
        match call {
            "read" => Err(Error::backend(std::io::Error::other("unreadable"))),
            _ => Ok(()),
        }
    }
}

/// Letters come back although the search for the first one met a message that cannot be read.
#[tokio::test]
async fn what_cannot_be_read_does_not_stop_a_redrive() {
    let streams = Streams::new(Wrapped::new(Unreadable), ServiceConfig::default());
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let options = SubscribeOptions::default().with_start(StartFrom::Earliest);
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let consumer = streams.subscribe("s", "g", options, bury).await.unwrap();
    while consumer.stats().dead_lettered == 0 {
        tokio::task::yield_now().await;
    }
    consumer.close().await;
    let redriven = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!(redriven.moved, 1);
}

/// So that what failed is not overrun when it works again.
#[tokio::test(start_paused = true)]
async fn a_redrive_keeps_to_its_rate() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    for (rate, letters, seconds) in [
        (10, 50, 5.0),
        (1000, 250, 0.25),
        (7, 21, 3.0),
        (1, 60, 60.0),
    ] {
        let publishing = streams.publish_batch("s.dead", numbered(letters));
        publishing.await.unwrap();
        let redrive = Redrive::default()
            .with_target("t")
            .with_rate(NonZeroU32::new(rate).unwrap());
        let begun = Instant::now();
        let before = streams.stats("t").await.unwrap().messages;
        let redriving = streams.redrive("s.dead", redrive);
        let looking = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            streams.stats("t").await.unwrap().messages - before
        };
        let (redriven, soon_after) = tokio::join!(redriving, looking);
        assert_eq!(redriven.unwrap().moved, letters);
        // No more than in a second, so that no claim expires meanwhile.
        assert!(soon_after <= rate.into(), "{rate}: {soon_after}");
        let took = begun.elapsed().as_secs_f64();
        assert!((seconds..seconds * 1.1).contains(&took), "{rate}: {took}");
    }
}

/// They may be letters that this redrive has brought to death again.
#[tokio::test(start_paused = true)]
async fn letters_that_arrive_during_a_redrive_are_left_for_the_next() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    let publish = |letters| streams.publish_batch("s.dead", numbered(letters));
    publish(20).await.unwrap();
    let slowly = Redrive::default()
        .with_target("t")
        .with_rate(NonZeroU32::new(10).unwrap());
    let redriving = streams.redrive("s.dead", slowly.clone());
    let publishing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        publish(5).await.unwrap();
    };
    let (redriven, ()) = tokio::join!(redriving, publishing);
    assert_eq!(redriven.unwrap().moved, 20);
    let redriven = streams.redrive("s.dead", slowly).await.unwrap();
    assert_eq!(redriven.moved, 5);
}

/// Takes long for each claim, and counts them.
#[derive(Debug, Default)]
struct SlowClaims(AtomicU64);

#[async_trait]
impl Hook for SlowClaims {
    async fn after(&self, call: &'static str) {
        if call == "claim" {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(VISIBILITY / 3).await;
        }
    }
}

/// What a filter leaves does not come again meanwhile, however long it takes to get past it.
#[tokio::test(start_paused = true)]
async fn a_redrive_with_a_filter_gets_past_what_stays() {
    for rate in [None, NonZeroU32::new(1)] {
        let engine = Wrapped::new(SlowClaims::default());
        let streams = Streams::new(engine.clone(), ServiceConfig::default());
        let publishing = streams.publish_batch("s.dead", numbered(600));
        publishing.await.unwrap();
        let mut redrive = Redrive::default()
            .with_target("t")
            .with_filter(|letter| letter.id.as_u64() > 590);
        if let Some(rate) = rate {
            redrive = redrive.with_rate(rate);
        }
        let redriving = streams.redrive("s.dead", redrive);
        let redriven = tokio::time::timeout(VISIBILITY * 100, redriving).await;
        assert_eq!(redriven.unwrap().unwrap().moved, 10);
        assert_eq!(engine.hook.0.load(Ordering::Relaxed), 7);
        // The others can be brought back at once.
        let redriven = streams.redrive("s.dead", Redrive::default().with_target("t"));
        assert_eq!(redriven.await.unwrap().moved, 590);
    }
}

/// Refuses the first settlement.
#[derive(Debug, Default)]
struct Refused(AtomicBool);

#[async_trait]
impl Hook for Refused {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        if call == "settle" && !self.0.swap(true, Ordering::Relaxed) {
            return Err(Error::backend(std::io::Error::other("away")));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_redrive_that_failed_continues_when_it_is_called_again() {
    let streams = Streams::new(Wrapped::new(Refused::default()), ServiceConfig::default());
    let publishing = streams.publish_batch("s.dead", numbered(5));
    publishing.await.unwrap();
    let redrive = Redrive::default().with_target("t");
    let failed = streams.redrive("s.dead", redrive.clone()).await;
    assert!(matches!(failed, Err(Error::Backend(_))), "{failed:?}");
    let redriven = streams.redrive("s.dead", redrive).await.unwrap();
    assert_eq!(redriven.moved, 5);
}

#[tokio::test]
async fn a_redrive_names_the_option_that_is_no_name() {
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    let redrive = Redrive::default().with_target("x".repeat(300));
    let error = streams.redrive("s.dead", redrive).await.unwrap_err();
    let is_target = matches!(
        error,
        Error::InvalidName {
            field: "target",
            ..
        }
    );
    assert!(is_target, "{error:?}");
}
