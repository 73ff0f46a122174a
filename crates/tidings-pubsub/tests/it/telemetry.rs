//! What the metrics count.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tidings_pubsub::telemetry::{DELIVERED, DROPPED, ERROR_TYPE, LAGGED, OVERFLOW, PUBLISHED};
use tidings_pubsub::{
    Broker, MemoryBroker, Namespace, Overflow, Received, SubscribeOptions, Subscriber,
};
use tidings_test_support::CallsBack;

/// The counters that are not zero, since the last call, by their names and labels.
fn counters(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let DebugValue::Counter(count) = value else {
            panic!("{key:?} is no counter");
        };
        let key = key.key();
        let mut name = key.name().to_owned();
        for label in key.labels() {
            name = format!("{name} {}={}", label.key(), label.value());
        }
        if count > 0 {
            counters.insert(name, count);
        }
    }
    counters
}

fn expected<const N: usize>(expected: [(String, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_happens() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let broker = MemoryBroker::new();
    let topic = Namespace::default().topic("orders").unwrap();
    let publish = async || broker.publish(&topic, "paid".into()).await;

    // Without subscribers.
    publish().await.unwrap();
    assert_eq!(
        counters(&snapshotter),
        expected([(PUBLISHED.to_owned(), 1)])
    );

    for (overflow, name) in [
        (Overflow::DropOldest, "drop_oldest"),
        (Overflow::DropNewest, "drop_newest"),
        (Overflow::Wait(Duration::from_secs(1)), "wait"),
    ] {
        let options = SubscribeOptions::default()
            .with_capacity(2)
            .with_overflow(overflow);
        let topics = vec![topic.clone()];
        let mut subscription = broker.subscribe(topics, options).await.unwrap();
        for _ in 0..5 {
            publish().await.unwrap();
        }
        let mut messages = 0;
        while messages < 2 {
            messages += usize::from(matches!(
                subscription.recv().await,
                Some(Received::Message(_))
            ));
        }
        // Those that were missed after what was there are reported with the next one.
        publish().await.unwrap();
        while !matches!(subscription.recv().await, Some(Received::Message(_))) {}
        let dropped = format!("{DROPPED} {OVERFLOW}={name}");
        assert_eq!(
            counters(&snapshotter),
            expected([
                (PUBLISHED.to_owned(), 6),
                (DELIVERED.to_owned(), 3),
                (LAGGED.to_owned(), 1),
                (dropped, 3),
            ])
        );
    }

    broker.close().await;
    publish().await.unwrap_err();
    let failed = format!("{PUBLISHED} {ERROR_TYPE}=closed");
    assert_eq!(counters(&snapshotter), expected([(failed, 1)]));
}

#[test]
fn a_recorder_may_use_the_broker_that_it_records() {
    let recorded = CallsBack::during(async |recorder| {
        let broker = MemoryBroker::new();
        let topic = Namespace::default().topic("orders").unwrap();
        let (caller, orders) = (broker.clone(), topic.clone());
        recorder.call(move || {
            // It ends at once, or waits for room and is dropped.
            drop(caller.publish(&orders, "recorded".into()).now_or_never());
            drop(
                caller
                    .subscribe(vec![orders.clone()], SubscribeOptions::default())
                    .now_or_never(),
            );
        });
        let limit = Duration::from_millis(10);
        for overflow in [
            Overflow::DropOldest,
            Overflow::DropNewest,
            Overflow::Wait(limit),
        ] {
            let options = SubscribeOptions::default()
                .with_capacity(2)
                .with_overflow(overflow);
            let mut subscription = broker
                .subscribe(vec![topic.clone()], options)
                .await
                .unwrap();
            for _ in 0..5 {
                broker.publish(&topic, "paid".into()).await.unwrap();
            }
            // What was missed is reported before, between or after them.
            let mut lagged = 0;
            while lagged == 0 {
                broker.publish(&topic, "paid".into()).await.unwrap();
                let received = subscription.recv().await.unwrap();
                lagged += usize::from(matches!(received, Received::Lagged(_)));
            }
        }
        broker.close().await;
    });
    let all = [DELIVERED, DROPPED, LAGGED, PUBLISHED].map(str::to_owned);
    assert_eq!(recorded, all.into());
}
