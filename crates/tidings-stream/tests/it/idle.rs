//! What subscriptions cost that have nothing to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::{Error, NewMessage, ServiceConfig, Streams, SubscribeOptions};

use crate::wrapped::{Hook, Wrapped};

/// Counts how an engine is called.
#[derive(Debug, Default)]
struct Calls {
    claims: AtomicU64,
    polls: AtomicU64,
    check_ins: AtomicU64,
}

#[async_trait]
impl Hook for Calls {
    async fn before(&self, call: &'static str, _: usize) -> Result<(), Error> {
        let counter = match call {
            "claim" => &self.claims,
            "ready" => &self.polls,
            "check_in" => &self.check_ins,
            _ => return Ok(()),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Calls {
    fn take(&self) -> (u64, u64, u64) {
        let take = |calls: &AtomicU64| calls.swap(0, Ordering::Relaxed);
        (take(&self.claims), take(&self.polls), take(&self.check_ins))
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_subscriptions_ask_once_per_interval() {
    let engine = Wrapped::losing_wake_ups(Calls::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let count = Arc::new(AtomicU64::new(0));
    let mut consumers = Vec::new();
    for number in 0..1000 {
        let count = Arc::clone(&count);
        let stream = format!("s{}", number % 10);
        let group = format!("g{number}");
        let options = SubscribeOptions::default();
        let handler = move |_| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        let consumer = streams.subscribe(&stream, &group, options, handler);
        consumers.push(consumer.await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (claims, _, check_ins) = engine.hook.take();
    assert_eq!((claims, check_ins), (1000, 1000));

    // A minute of silence: everyone is asked for once a second, and says four times that it lives.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (claims, polls, check_ins) = engine.hook.take();
    assert_eq!(claims, 0);
    assert!((50..=150).contains(&polls), "{polls}");
    assert!((3..=5).contains(&check_ins), "{check_ins}");

    // A message without a wake-up is found by its own consumers, and by no others.
    streams.publish("s3", NewMessage::new("")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count.load(Ordering::Relaxed), 100);
    let (claims, polls, _) = engine.hook.take();
    assert!((100..=200).contains(&claims), "{claims}");
    assert!(polls <= 6, "{polls}");

    streams.close().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    engine.hook.take();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(engine.hook.take(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn intervals_of_different_length_are_kept() {
    let engine = Wrapped::losing_wake_ups(Calls::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let mut consumers = Vec::new();
    for (group, seconds) in [("often", 1), ("rarely", 60)] {
        let options = SubscribeOptions::default().with_poll_interval(Duration::from_secs(seconds));
        let consumer = streams.subscribe("s", group, options, |_| async { Ok(()) });
        consumers.push(consumer.await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    engine.hook.take();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (_, polls, _) = engine.hook.take();
    assert!((500..=800).contains(&polls), "{polls}");
}
