//! What the broker in memory promises beyond the contract.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tidings_pubsub::{
    Broker, Error, Lagged, MemoryBroker, Message, Namespace, Overflow, Received, SubscribeOptions,
    Subscriber, Subscription, Topic,
};
use tokio::time::Instant;

fn topic() -> Topic {
    Namespace::default().topic("orders").unwrap()
}

async fn subscribe(broker: &MemoryBroker, options: SubscribeOptions) -> Subscription {
    broker.subscribe(vec![topic()], options).await.unwrap()
}

async fn publish(broker: &MemoryBroker, payloads: impl IntoIterator<Item = u32>) {
    for payload in payloads {
        broker
            .publish(&topic(), payload.to_string().into())
            .await
            .unwrap();
    }
}

/// What can be received at once: the number of a message, or how many are missing.
fn received(subscription: &mut Subscription) -> Vec<Result<u32, Lagged>> {
    let mut all = Vec::new();
    while let Some(Some(received)) = futures_util::FutureExt::now_or_never(subscription.next()) {
        all.push(match received {
            Received::Message(message) => Ok(std::str::from_utf8(message.payload())
                .unwrap()
                .parse()
                .unwrap()),
            Received::Lagged(lagged) => Err(lagged),
        });
    }
    all
}

#[tokio::test]
async fn the_oldest_make_room() {
    let broker = MemoryBroker::new();
    let mut subscription = subscribe(&broker, SubscribeOptions::default().with_capacity(3)).await;
    publish(&broker, 0..10).await;
    let lagged = Lagged::by(7);
    assert_eq!(
        received(&mut subscription),
        [Err(lagged), Ok(7), Ok(8), Ok(9)]
    );
    publish(&broker, 10..12).await;
    assert_eq!(received(&mut subscription), [Ok(10), Ok(11)]);
}

#[tokio::test]
async fn the_newest_are_dropped_and_missing_where_they_would_have_been() {
    let broker = MemoryBroker::new();
    let options = SubscribeOptions::default()
        .with_capacity(3)
        .with_overflow(Overflow::DropNewest);
    let mut subscription = subscribe(&broker, options).await;
    publish(&broker, 0..5).await;
    assert!(matches!(
        subscription.recv().await,
        Some(Received::Message(_))
    ));
    publish(&broker, 5..7).await;
    assert_eq!(
        received(&mut subscription),
        [Ok(1), Ok(2), Err(Lagged::by(2)), Ok(5), Err(Lagged::by(1))]
    );
}

#[tokio::test]
async fn the_default_keeps_one_hundred() {
    let broker = MemoryBroker::new();
    let mut subscription = subscribe(&broker, SubscribeOptions::default()).await;
    publish(&broker, 0..101).await;
    let all = received(&mut subscription);
    assert_eq!((all.len(), all[0]), (101, Err(Lagged::by(1))));
}

#[tokio::test]
async fn a_capacity_of_zero_is_one() {
    let broker = MemoryBroker::new();
    let mut subscription = subscribe(&broker, SubscribeOptions::default().with_capacity(0)).await;
    publish(&broker, 0..2).await;
    assert_eq!(received(&mut subscription), [Err(Lagged::by(1)), Ok(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_the_slow_once_all_others_are_served() {
    let broker = MemoryBroker::new();
    let limit = Duration::from_secs(5);
    let waits = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(limit));
    let mut slow = subscribe(&broker, waits).await;
    let mut slow_too = subscribe(&broker, waits).await;
    let mut quick = subscribe(&broker, SubscribeOptions::default()).await;
    publish(&broker, [0]).await;

    let started = Instant::now();
    let second = publish(&broker, [1]);
    let served = async {
        quick.recv().await;
        quick.recv().await;
        started.elapsed()
    };
    let ((), served) = tokio::join!(second, served);
    assert_eq!(served, Duration::ZERO);
    // It waits for both at the same time.
    assert_eq!(started.elapsed(), limit);
    assert_eq!(received(&mut slow), [Ok(0), Err(Lagged::by(1))]);
    assert_eq!(received(&mut slow_too), [Ok(0), Err(Lagged::by(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_goes_on_as_soon_as_there_is_room() {
    let broker = MemoryBroker::new();
    let waits = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(Duration::from_secs(5)));
    let mut subscription = subscribe(&broker, waits).await;
    publish(&broker, [0]).await;
    let started = Instant::now();
    tokio::join!(publish(&broker, 1..4), async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            subscription.recv().await;
        }
    });
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    assert_eq!(received(&mut subscription), [Ok(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_dropped_while_it_waits_is_counted_as_missed() {
    let broker = MemoryBroker::new();
    let waits = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(Duration::from_secs(5)));
    let mut subscription = subscribe(&broker, waits).await;
    publish(&broker, [0]).await;
    let waiting = publish(&broker, [1]);
    let cut_short = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    assert!(cut_short.is_err());
    assert_eq!(received(&mut subscription), [Ok(0), Err(Lagged::by(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_is_released_when_the_subscriber_or_the_broker_goes() {
    let broker = MemoryBroker::new();
    let waits = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(Duration::from_secs(5)));
    let started = Instant::now();

    let subscription = subscribe(&broker, waits).await;
    publish(&broker, [0]).await;
    tokio::join!(publish(&broker, [1]), async { drop(subscription) });

    let listener = subscribe(&broker, waits)
        .await
        .handle(|_| std::future::pending());
    // The handler takes one, the mailbox another.
    publish(&broker, [2]).await;
    tokio::task::yield_now().await;
    publish(&broker, [3]).await;
    tokio::join!(publish(&broker, [4]), async { drop(listener) });

    let _subscription = subscribe(&broker, waits).await;
    publish(&broker, [5]).await;
    let topic = topic();
    let (published, ()) = tokio::join!(broker.publish(&topic, "6".into()), broker.close());
    // All that have room have got it.
    assert!(
        matches!(published, Err(Error::OutcomeUnknown(_))),
        "{published:?}"
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_is_in_the_mailbox_survives_the_close() {
    let broker = MemoryBroker::new();
    let mut subscription = subscribe(&broker, SubscribeOptions::default().with_capacity(2)).await;
    publish(&broker, 0..3).await;
    broker.close().await;
    assert_eq!(
        received(&mut subscription),
        [Err(Lagged::by(1)), Ok(1), Ok(2)]
    );
    assert_eq!(subscription.recv().await, None);
    assert_eq!(subscription.next().await, None);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_it() {
    let broker = MemoryBroker::new();
    let mut subscription = subscribe(&broker, SubscribeOptions::default()).await;
    let clone = broker.clone();
    drop(broker);
    publish(&clone, [0]).await;
    drop(clone);
    assert_eq!(received(&mut subscription), [Ok(0)]);
    assert_eq!(subscription.recv().await, None);
    let closed = subscription.topics().add(&topic()).await;
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
}

#[tokio::test]
async fn copies_share_the_bytes() {
    let broker = MemoryBroker::new();
    let mut first = subscribe(&broker, SubscribeOptions::default()).await;
    let mut second = subscribe(&broker, SubscribeOptions::default()).await;
    let payload = bytes::Bytes::from(vec![7; 1000]);
    broker.publish(&topic(), payload.clone()).await.unwrap();
    for subscription in [&mut first, &mut second] {
        let Some(Received::Message(message)) = subscription.recv().await else {
            panic!("no message");
        };
        assert_eq!(message.payload().as_ptr(), payload.as_ptr());
    }
}

#[tokio::test]
async fn a_reader_that_never_waits_lets_others_run() {
    let broker = MemoryBroker::new();
    let options = SubscribeOptions::default().with_capacity(100_000);
    let mut subscription = subscribe(&broker, options).await;
    publish(&broker, 0..100_000).await;
    let mut read = 0;
    // Polled alternately on one task; without a budget the reader would finish first.
    tokio::select! {
        biased;
        () = async {
            while read < 100_000 {
                subscription.recv().await;
                read += 1;
            }
        } => {}
        () = tokio::task::yield_now() => {}
    }
    assert!(read < 100_000, "{read}");
}

#[tokio::test]
async fn a_listener_that_is_stopped_handles_all_that_was_published() {
    let broker = MemoryBroker::new();
    let handled = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&handled);
    let listener = subscribe(&broker, SubscribeOptions::default())
        .await
        .handle(move |received| {
            record.lock().unwrap().push(received);
            tokio::task::yield_now()
        });
    publish(&broker, 0..3).await;
    listener.stop().await;
    publish(&broker, 3..5).await;
    let expected = ["0", "1", "2"].map(|payload| Received::Message(Message::new(topic(), payload)));
    assert_eq!(*handled.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_live_listener_takes_on_topics_and_gives_them_up() {
    let broker = MemoryBroker::new();
    let more: Topic = "app.default.more".parse().unwrap();
    let (report, mut reports) = tokio::sync::mpsc::channel(8);
    let listener = subscribe(&broker, SubscribeOptions::default())
        .await
        .handle(move |received| {
            let report = report.clone();
            async move { report.send(received).await.unwrap() }
        });
    listener.topics().add(&more).await.unwrap();
    listener.topics().remove(&topic()).await.unwrap();
    publish(&broker, [0]).await;
    broker.publish(&more, "more".into()).await.unwrap();
    let expected = Received::Message(Message::new(more, "more"));
    assert_eq!(reports.recv().await, Some(expected));
    listener.stop().await;
}
