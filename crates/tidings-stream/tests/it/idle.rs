//! What subscriptions cost that have nothing to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::engine::{Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes};
use tidings_stream::{
    Error, Member, MemoryEngine, Message, MessageId, NewMessage, PendingMessage, Retention,
    ServiceConfig, StartFrom, StreamName, StreamStats, Streams, SubscribeOptions,
};

/// An engine that counts how it is called, and loses every wake-up.
#[derive(Debug, Clone, Default)]
struct Counted {
    engine: MemoryEngine,
    calls: Arc<Calls>,
    wakes: Wakes,
}

#[derive(Debug, Default)]
struct Calls {
    claims: AtomicU64,
    questions: AtomicU64,
    check_ins: AtomicU64,
}

impl Calls {
    fn take(&self) -> (u64, u64, u64) {
        let take = |calls: &AtomicU64| calls.swap(0, Ordering::Relaxed);
        (
            take(&self.claims),
            take(&self.questions),
            take(&self.check_ins),
        )
    }
}

/// Passes calls on to the engine inside, and counts some.
macro_rules! pass_on {
    ($($method:ident($($name:ident: $type:ty),*) -> $output:ty $(, $counter:ident)?;)*) => {
        #[async_trait]
        impl Engine for Counted {
            $(async fn $method(&self $(, $name: $type)*) -> Result<$output, Error> {
                $(self.calls.$counter.fetch_add(1, Ordering::Relaxed);)?
                self.engine.$method($($name),*).await
            })*

            fn wakes(&self) -> &Wakes {
                // Not the wake-ups of the engine inside.
                &self.wakes
            }
        }
    };
}

pass_on! {
    append(stream: &StreamName, messages: Vec<NewMessage>, retention: Retention)
        -> Vec<MessageId>;
    open_group(group: &GroupKey, start: StartFrom) -> ();
    seek(group: &GroupKey, to: StartFrom) -> ();
    delete_group(group: &GroupKey) -> bool;
    delete_stream(stream: &StreamName) -> bool;
    claim(consumer: &ConsumerKey, max: usize, visibility: Duration) -> Claimed, claims;
    settle(group: &GroupKey, settlements: Arc<[Settlement]>) -> Vec<bool>;
    extend(group: &GroupKey, receipts: Arc<[Receipt]>, visibility: Duration) -> Vec<bool>;
    ready(groups: Arc<[GroupKey]>) -> Vec<bool>, questions;
    check_in(consumers: Arc<[ConsumerKey]>, ttl: Duration) -> (), check_ins;
    trim() -> u64;
    list(prefix: &str) -> Vec<StreamName>;
    stats(stream: &StreamName) -> StreamStats;
    read(stream: &StreamName, after: Option<MessageId>, max: usize) -> Vec<Message>;
    pending(group: &GroupKey, after: Option<MessageId>, max: usize) -> Vec<PendingMessage>;
    members(group: &GroupKey) -> Vec<Member>;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_subscriptions_ask_once_per_interval() {
    let engine = Counted::default();
    let streams = Streams::new(Arc::new(engine.clone()), ServiceConfig::default());
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
    let (claims, _, check_ins) = engine.calls.take();
    assert_eq!((claims, check_ins), (1000, 1000));

    // A minute of silence: everyone is asked for once a second, and says four times that it lives.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (claims, questions, check_ins) = engine.calls.take();
    assert_eq!(claims, 0);
    assert!((50..=150).contains(&questions), "{questions}");
    assert!((3..=5).contains(&check_ins), "{check_ins}");

    // A message that nobody was woken for is found by those whom it is for, and by nobody else.
    streams.publish("s3", NewMessage::new("")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count.load(Ordering::Relaxed), 100);
    let (claims, questions, _) = engine.calls.take();
    assert!((100..=200).contains(&claims), "{claims}");
    assert!(questions <= 6, "{questions}");

    streams.close().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    engine.calls.take();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(engine.calls.take(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn intervals_of_different_length_are_kept() {
    let engine = Counted::default();
    let streams = Streams::new(Arc::new(engine.clone()), ServiceConfig::default());
    let mut consumers = Vec::new();
    for (group, seconds) in [("often", 1), ("rarely", 60)] {
        let options = SubscribeOptions::default().with_poll_interval(Duration::from_secs(seconds));
        let consumer = streams.subscribe("s", group, options, |_| async { Ok(()) });
        consumers.push(consumer.await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    engine.calls.take();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (_, questions, _) = engine.calls.take();
    assert!((500..=800).contains(&questions), "{questions}");
}
