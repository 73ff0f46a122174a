//! What goes wrong between a broker and its server, for each engine.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tidings_pubsub::{
    Broker, Error, Lagged, Message, Namespace, Received, SubscribeOptions, Subscription, Topic,
};
use tidings_test_support::{Fault, Outage, Proxy, soon};

/// How long the brokers of these tests wait for a reply: longer than a busy machine may stand still.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(4);

/// How often they look whether the server is there.
pub(crate) const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// Makes the tests for an engine: its URL, a broker that connects to another one, and how many
/// connections a broker has that publishes and listens.
macro_rules! fault_tests {
    ($url:expr, $broker:expr, connections: $connections:expr) => {
        $crate::faults::fault_tests! { $url, $broker;
            a_thousand_topics_share_their_connections($connections)
            closing_and_dropping_close_the_connections($connections)
            a_cut_connection_is_restored_and_the_gap_reported
            a_connection_that_falls_silent_is_replaced
            a_first_connection_that_fails_is_an_error_and_not_the_end
            a_subscription_during_an_outage_fails_and_harms_no_other
            a_publish_without_a_reply_says_so
            a_publish_without_a_connection_was_not_sent
            a_publish_that_is_dropped_harms_no_other
            payloads_of_a_mebibyte_keep_their_order
            equal_messages_arrive_each
        }
    };
    ($url:expr, $broker:expr; $($fault:ident $(($difference:expr))?)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fault() {
                $crate::faults::$fault(&$url, $broker $(, $difference)?).await;
            }
        )*
    };
}
pub(crate) use fault_tests;

/// Whatever happens to the server, a publish fails within its limits and names what is known, and
/// subscriptions continue afterwards. Nothing that a broker does needs room for long: faults in `harmless` do
/// not stop it.
pub(crate) async fn every_fault_is_survived<B: Broker>(
    outage: &mut dyn Outage,
    broker: fn(&str) -> B,
    harmless: &[Fault],
) {
    let broker = broker(outage.url());
    let [topic] = topics(["fault"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for fault in Fault::ALL {
        publish(&broker, &topic, "before").await;
        assert_eq!(recv(&mut subscription).await, message(&topic, "before"));
        outage.begin(fault).await.unwrap();
        if harmless.contains(&fault) {
            publish(&broker, &topic, "during").await;
            assert_eq!(recv(&mut subscription).await, message(&topic, "during"));
            outage.restore().await.unwrap();
            continue;
        }
        let failed = soon("a reply", broker.publish(&topic, "lost".into())).await;
        assert!(failed.is_err(), "{fault:?}");
        outage.restore().await.unwrap();
        // A server that continues in time has lost nothing.
        if fault != Fault::Freeze {
            let lagged = Received::Lagged(Lagged::unknown());
            soon("the report of the gap", async {
                while recv(&mut subscription).await != lagged {}
            })
            .await;
        }
        // What is published before the broker listens again is lost.
        soon("a message", async {
            loop {
                let _failed = broker.publish(&topic, "after".into()).await;
                let arrived = tokio::time::timeout(HEALTH_INTERVAL, subscription.recv()).await;
                if arrived == Ok(Some(message(&topic, "after"))) {
                    break;
                }
            }
        })
        .await;
        publish(&broker, &topic, "end").await;
        soon("the end", async {
            while recv(&mut subscription).await != message(&topic, "end") {}
        })
        .await;
    }
}

pub(crate) async fn a_cut_connection_is_restored_and_the_gap_reported<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    let (near, far) = (broker(proxy.url()), broker(url));
    let [left, right] = topics(["left", "right"]);
    let mut both = subscribe(&near, [&left, &right]).await;
    let mut one = subscribe(&near, [&right]).await;
    let mut none = subscribe(&near, []).await;
    for _ in 0..3 {
        publish(&far, &right, "before").await;
        for subscription in [&mut both, &mut one] {
            assert_eq!(recv(subscription).await, message(&right, "before"));
        }

        proxy.block();
        proxy.deserted().await;
        publish(&far, &right, "lost").await;
        proxy.restore();
        for subscription in [&mut both, &mut one] {
            let lagged = Received::Lagged(Lagged::unknown());
            assert_eq!(recv(subscription).await, lagged);
        }
        publish(&far, &right, "after").await;
        for subscription in [&mut both, &mut one] {
            assert_eq!(recv(subscription).await, message(&right, "after"));
        }
        publish(&far, &left, "after").await;
        assert_eq!(recv(&mut both).await, message(&left, "after"));
    }
    // Who had no topic has missed nothing.
    none.topics().add(&left).await.unwrap();
    publish(&far, &left, "first").await;
    assert_eq!(recv(&mut none).await, message(&left, "first"));
}

pub(crate) async fn a_connection_that_falls_silent_is_replaced<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    let (near, far) = (broker(proxy.url()), broker(url));
    let [topic] = topics(["silent"]);
    let mut subscription = subscribe(&near, [&topic]).await;
    proxy.freeze();
    publish(&far, &topic, "lost").await;
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    publish(&far, &topic, "after").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
}

pub(crate) async fn a_first_connection_that_fails_is_an_error_and_not_the_end<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    proxy.block();
    let broker = broker(proxy.url());
    let [topic] = topics(["first"]);
    let failed = broker
        .subscribe(vec![topic.clone()], SubscribeOptions::default())
        .await;
    assert!(matches!(failed, Err(Error::Backend(_))), "{failed:?}");
    // Without topics there is nothing to ask the server for.
    let empty = subscribe(&broker, []).await;
    let failed = empty.topics().add(&topic).await;
    assert!(matches!(failed, Err(Error::Backend(_))), "{failed:?}");

    proxy.restore();
    let mut subscription = subscribe(&broker, [&topic]).await;
    publish(&broker, &topic, "hello").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "hello"));
}

pub(crate) async fn a_subscription_during_an_outage_fails_and_harms_no_other<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    let broker = broker(proxy.url());
    let [had, wanted] = topics(["had", "wanted"]);
    let mut subscription = subscribe(&broker, [&had]).await;
    proxy.block();
    proxy.deserted().await;
    let failed = broker.subscribe(vec![wanted.clone()], SubscribeOptions::default());
    let failed = soon("a reply", failed).await;
    assert!(matches!(failed, Err(Error::Backend(_))), "{failed:?}");
    // What it has already stays, whatever becomes of asking for it again.
    let asked = soon("a reply", subscription.topics().add(&had)).await;
    assert!(
        matches!(asked, Ok(()) | Err(Error::Backend(_))),
        "{asked:?}"
    );
    proxy.restore();
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    subscription.topics().add(&wanted).await.unwrap();
    for topic in [&had, &wanted] {
        publish(&broker, topic, "after").await;
        assert_eq!(recv(&mut subscription).await, message(topic, "after"));
    }
}

pub(crate) async fn a_publish_without_a_reply_says_so<B: Broker>(url: &str, broker: fn(&str) -> B) {
    let proxy = Proxy::start(url).await.unwrap();
    let broker = broker(proxy.url());
    let [topic] = topics(["lost_reply"]);
    publish(&broker, &topic, "one").await;
    proxy.freeze();
    let failed = soon("a reply", broker.publish(&topic, "two".into())).await;
    assert!(
        matches!(failed, Err(Error::OutcomeUnknown(_))),
        "{failed:?}"
    );
    assert!(failed.unwrap_err().may_have_been_done());
    publish(&broker, &topic, "three").await;
}

pub(crate) async fn a_publish_without_a_connection_was_not_sent<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    let broker = broker(proxy.url());
    let [topic] = topics(["unsent"]);
    publish(&broker, &topic, "one").await;
    proxy.block();
    proxy.deserted().await;
    // It may take a moment until a broker knows that a connection is gone.
    let mut failed = soon("a reply", broker.publish(&topic, "two".into())).await;
    if matches!(&failed, Err(error) if error.may_have_been_done()) {
        failed = soon("a reply", broker.publish(&topic, "two".into())).await;
    }
    assert!(matches!(failed, Err(Error::Backend(_))), "{failed:?}");
    assert!(!failed.unwrap_err().may_have_been_done());
    proxy.restore();
    publish(&broker, &topic, "three").await;
}

pub(crate) async fn a_thousand_topics_share_their_connections<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
    connections: usize,
) {
    const TOPICS: usize = 1000;
    let proxy = Proxy::start(url).await.unwrap();
    let broker = broker(proxy.url());
    let [prefix] = topics(["many"]);
    let topics: Vec<Topic> = (0..TOPICS)
        .map(|number| format!("{prefix}-{number}").parse().unwrap())
        .collect();
    let options = SubscribeOptions::default().with_capacity(2 * TOPICS);
    let at_once = broker.subscribe(topics.clone(), options);
    let mut at_once = soon("a subscription", at_once).await.unwrap();
    let mut singly = Vec::new();
    for topic in &topics {
        singly.push(subscribe(&broker, [topic]).await);
    }
    for round in ["first", "after the break"] {
        for topic in &topics {
            publish(&broker, topic, round).await;
            assert_eq!(recv(&mut at_once).await, message(topic, round));
        }
        for (topic, subscription) in topics.iter().zip(&mut singly) {
            assert_eq!(recv(subscription).await, message(topic, round));
        }
        if round == "first" {
            assert_eq!(proxy.accepted(), connections);
            proxy.block();
            proxy.deserted().await;
            proxy.restore();
            let lagged = Received::Lagged(Lagged::unknown());
            for subscription in singly.iter_mut().chain([&mut at_once]) {
                assert_eq!(recv(subscription).await, lagged);
            }
        }
    }
}

pub(crate) async fn payloads_of_a_mebibyte_keep_their_order<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let broker = broker(url);
    let [left, right] = topics(["l\"'é✓", "r$1; --"]);
    let mut subscription = subscribe(&broker, [&left, &right]).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads = [0, 1, 5000, 6000, 65_536, 1 << 20, 3, 1 << 20, 0]
        .map(|size| Bytes::from(every_byte.repeat(size / 256 + 1)[..size].to_vec()));
    for (payload, topic) in payloads.iter().zip([&left, &right].into_iter().cycle()) {
        publish(&broker, topic, payload.clone()).await;
    }
    for (payload, topic) in payloads.iter().zip([&left, &right].into_iter().cycle()) {
        let arrived = recv(&mut subscription).await;
        let expected = message(topic, payload.clone());
        assert!(arrived == expected, "of {} bytes", payload.len());
    }
}

pub(crate) async fn equal_messages_arrive_each<B: Broker>(url: &str, broker: fn(&str) -> B) {
    let broker = broker(url);
    let [topic] = topics(["equal"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    let all = (0..100).map(|_| publish(&broker, &topic, "again"));
    futures_util::future::join_all(all).await;
    for _ in 0..100 {
        assert_eq!(recv(&mut subscription).await, message(&topic, "again"));
    }
}

pub(crate) async fn closing_and_dropping_close_the_connections<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
    connections: usize,
) {
    for closes in [true, false] {
        let proxy = Proxy::start(url).await.unwrap();
        let broker = broker(proxy.url());
        let [topic] = topics(["gone"]);
        let mut subscription = subscribe(&broker, [&topic]).await;
        publish(&broker, &topic, "last").await;
        assert_eq!(recv(&mut subscription).await, message(&topic, "last"));
        if closes {
            broker.close().await;
        } else {
            drop(broker);
        }
        let ended = soon("the subscription to end", subscription.recv()).await;
        assert_eq!(ended, None);
        soon("the connections to close", proxy.deserted()).await;
        assert_eq!(proxy.accepted(), connections);
    }
}

/// The broker hands its messages over without a check before them.
pub(crate) async fn closing_in_an_outage_does_not_wait<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let proxy = Proxy::start(url).await.unwrap();
    let broker = broker(proxy.url());
    let [topic, other] = topics(["closing", "other"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    publish(&broker, &topic, "last").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "last"));
    proxy.freeze();
    let waiting = async {
        // The server may get them yet.
        let publish = || broker.publish(&topic, "never".into());
        for published in <[_; 2]>::from(tokio::join!(publish(), publish())) {
            assert!(
                matches!(published, Err(Error::OutcomeUnknown(_))),
                "{published:?}"
            );
        }
        let published = publish().await;
        assert!(matches!(published, Err(Error::Closed)), "{published:?}");
        let subscribed = subscription.topics().add(&other).await;
        assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
    };
    let closing = async {
        tokio::task::yield_now().await;
        broker.close().await;
    };
    soon("all to end", async { tokio::join!(waiting, closing) }).await;
    assert_eq!(subscription.recv().await, None);
}

/// The same while the broker tries to connect again to a server that is frozen.
pub(crate) async fn closing_while_reconnecting_does_not_wait<B: Broker>(
    outage: &mut dyn Outage,
    broker: fn(&str) -> B,
) {
    let broker = broker(outage.url());
    let [topic] = topics(["closing"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    outage.begin(Fault::Freeze).await.unwrap();
    let lost = soon("a reply", broker.publish(&topic, "lost".into())).await;
    assert!(lost.is_err());
    let closing = tokio::time::Instant::now();
    let waiting = broker.publish(&topic, "never".into());
    let (published, ()) = tokio::join!(waiting, broker.close());
    assert!(matches!(published, Err(Error::Closed)), "{published:?}");
    while subscription.recv().await.is_some() {}
    let took = closing.elapsed();
    // The connection that is being made waits for its server until nearly then.
    assert!(took < REPLY_LIMIT * 7 / 8, "{took:?}");
    outage.restore().await.unwrap();
}

/// Wherever a publish is dropped, its message arrives once or not at all, and each one after it arrives. A
/// message that is too large for a notification of PostgreSQL takes more steps.
pub(crate) async fn a_publish_that_is_dropped_harms_no_other<B: Broker>(
    url: &str,
    broker: fn(&str) -> B,
) {
    let broker = broker(url);
    let [topic] = topics(["dropped"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for (round, padding) in [0, 10_000].into_iter().enumerate() {
        let padding = "x".repeat(padding);
        let mut arrived = HashMap::new();
        for polls in 0..25 {
            let payload = format!("dropped {round} {polls} {padding}");
            let mut dropped = broker.publish(&topic, payload.into());
            for _ in 0..polls {
                if (&mut dropped).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(dropped);
            let end = format!("after {round} {polls} {padding}");
            publish(&broker, &topic, end.clone()).await;
            loop {
                let received = recv(&mut subscription).await;
                if received == message(&topic, end.clone()) {
                    break;
                }
                let Received::Message(received) = received else {
                    panic!("{received:?}");
                };
                *arrived.entry(received.payload().clone()).or_insert(0) += 1;
            }
        }
        assert!(arrived.values().all(|count| *count == 1), "{arrived:?}");
    }
}

/// Topics that no other test has.
pub(crate) fn topics<const N: usize>(names: [&str; N]) -> [Topic; N] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let namespace = format!("{}-{number}", std::process::id());
    let namespace = Namespace::new("faults", namespace).unwrap();
    names.map(|name| namespace.topic(name).unwrap())
}

pub(crate) fn message(topic: &Topic, payload: impl Into<Bytes>) -> Received {
    Received::Message(Message::new(topic.clone(), payload))
}

pub(crate) async fn subscribe<const N: usize>(
    broker: &impl Broker,
    topics: [&Topic; N],
) -> Subscription {
    let subscribed = broker.subscribe(topics.map(Topic::clone).into(), SubscribeOptions::default());
    soon("a subscription", subscribed).await.unwrap()
}

pub(crate) async fn publish(broker: &impl Broker, topic: &Topic, payload: impl Into<Bytes> + Send) {
    soon("a publish", broker.publish(topic, payload.into()))
        .await
        .unwrap();
}

pub(crate) async fn recv(subscription: &mut Subscription) -> Received {
    soon("a message", subscription.recv()).await.unwrap()
}
