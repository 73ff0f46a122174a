//! What every broker must do, as functions to run on a broker of your own.
//!
//! Each function is one behaviour of the contract of [`Publisher`](crate::Publisher),
//! [`Subscriber`](crate::Subscriber) and [`Broker`]; it takes a broker of its own, and panics when
//! the broker breaks the contract. [`conformance_tests!`](crate::conformance_tests) makes a test of
//! each:
//!
//! ```
//! # use tidings_pubsub::Memory;
//! mod my_broker {
//! # use super::*;
//!     tidings_pubsub::conformance_tests!(Memory::new());
//! }
//! # fn main() {}
//! ```
//!
//! Tests of several processes may share one server: each behaviour uses topics that no other has.
//! None waits for a time to pass, except for what is about time; one that waits in vain gives up
//! after ten seconds, with a reason.

#![allow(
    clippy::missing_panics_doc,
    reason = "every function here panics when the broker breaks the contract"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Broker, Error, MAX_TOPIC_BYTES, Message, Namespace, Options, Overflow, Received, Subscription,
    Topic,
};

/// Makes a test of each behaviour for one broker, in the module where it stands.
///
/// The expression makes a new broker; it stands in an `async` block, once for each test. The tests
/// need `tokio` with its features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    ($broker:expr) => {
        $crate::conformance_tests! { $broker;
            every_subscription_gets_its_own_copy
            a_message_without_subscribers_is_dropped
            messages_of_other_topics_do_not_arrive
            a_topic_that_is_asked_for_twice_arrives_once
            topics_can_be_added_and_removed
            unsubscribing_one_leaves_the_others
            a_dropped_subscription_is_gone
            messages_arrive_in_the_order_of_their_publisher
            payloads_arrive_byte_for_byte
            long_topics_are_told_apart
            a_slow_handler_delays_nobody
            the_oldest_make_room_and_every_loss_is_counted
            the_newest_are_dropped_and_every_loss_is_counted
            nothing_is_lost_when_there_is_room_in_time
            waiting_for_room_ends_and_every_loss_is_counted
            a_handler_may_subscribe_and_publish
            a_handler_that_panics_is_called_again
            a_stopped_listener_has_handled_everything
            closing_ends_everything
            closing_during_publishes_is_answered
        }
    };
    ($broker:expr; $($behaviour:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                $crate::conformance::$behaviour($broker).await;
            }
        )*
    };
}

/// Everyone who has the topic gets each message, in order, in full.
pub async fn every_subscription_gets_its_own_copy(broker: impl Broker) {
    let [topic] = topics();
    let mut first = subscribe(&broker, &[&topic]).await;
    let mut second = subscribe(&broker, &[&topic]).await;
    for payload in ["one", "two"] {
        publish(&broker, &topic, payload).await;
    }
    for subscription in [&mut first, &mut second] {
        assert_eq!(
            message(subscription).await,
            Message::new(topic.clone(), "one")
        );
        assert_eq!(
            message(subscription).await,
            Message::new(topic.clone(), "two")
        );
    }
}

/// Publishing to nobody succeeds, and whoever comes later does not get it.
pub async fn a_message_without_subscribers_is_dropped(broker: impl Broker) {
    let [topic] = topics();
    publish(&broker, &topic, "to nobody").await;
    let mut late = subscribe(&broker, &[&topic]).await;
    publish(&broker, &topic, "to you").await;
    assert_eq!(message(&mut late).await.payload, "to you");
}

/// A subscription gets messages of its own topics alone.
pub async fn messages_of_other_topics_do_not_arrive(broker: impl Broker) {
    let [wanted, other] = topics();
    let mut subscription = subscribe(&broker, &[&wanted]).await;
    publish(&broker, &other, "not for you").await;
    publish(&broker, &wanted, "for you").await;
    assert_eq!(message(&mut subscription).await.payload, "for you");
}

/// Asking for a topic again changes nothing.
pub async fn a_topic_that_is_asked_for_twice_arrives_once(broker: impl Broker) {
    let [topic] = topics();
    let mut subscription = subscribe(&broker, &[&topic, &topic]).await;
    subscription.subscribe(&topic).await.expect("subscribes");
    publish(&broker, &topic, "one").await;
    publish(&broker, &topic, "two").await;
    assert_eq!(message(&mut subscription).await.payload, "one");
    assert_eq!(message(&mut subscription).await.payload, "two");

    subscription
        .unsubscribe(&topic)
        .await
        .expect("unsubscribes");
    let [last] = topics();
    subscription.subscribe(&last).await.expect("subscribes");
    publish(&broker, &topic, "three").await;
    publish(&broker, &last, "four").await;
    assert_eq!(message(&mut subscription).await.payload, "four");
}

/// A live subscription takes on topics, and gives up exactly the one that it names.
pub async fn topics_can_be_added_and_removed(broker: impl Broker) {
    let [first, second, third, never] = topics();
    let mut subscription = subscribe(&broker, &[]).await;
    for topic in [&first, &second, &third] {
        subscription.subscribe(topic).await.expect("subscribes");
    }
    subscription
        .unsubscribe(&second)
        .await
        .expect("unsubscribes");
    subscription
        .unsubscribe(&never)
        .await
        .expect("unsubscribes");
    for topic in [&first, &second, &third] {
        publish(&broker, topic, "hello").await;
    }
    assert_eq!(message(&mut subscription).await.topic, first);
    assert_eq!(message(&mut subscription).await.topic, third);

    subscription.subscribe(&second).await.expect("subscribes");
    publish(&broker, &second, "hello again").await;
    assert_eq!(message(&mut subscription).await.payload, "hello again");
}

/// That one subscription gives up a topic is nothing to the others that have it.
pub async fn unsubscribing_one_leaves_the_others(broker: impl Broker) {
    let [topic, end] = topics();
    let mut leaving = subscribe(&broker, &[&topic, &end]).await;
    let mut staying = subscribe(&broker, &[&topic, &end]).await;
    leaving.unsubscribe(&topic).await.expect("unsubscribes");
    publish(&broker, &topic, "news").await;
    publish(&broker, &end, "end").await;
    assert_eq!(message(&mut leaving).await.payload, "end");
    assert_eq!(message(&mut staying).await.payload, "news");
    assert_eq!(message(&mut staying).await.payload, "end");
}

/// Nobody waits for a subscriber that has gone, and those that stay miss nothing.
pub async fn a_dropped_subscription_is_gone(broker: impl Broker) {
    let [topic] = topics();
    // Were it still there, each publish would wait for its room.
    let options = Options::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(PATIENCE * 10));
    let dropped = broker.subscribe([topic.clone()], options).await;
    let mut staying = subscribe(&broker, &[&topic]).await;
    publish(&broker, &topic, "one").await;
    drop(dropped.expect("subscribes"));
    let handled = broker.subscribe([topic.clone()], options).await;
    drop(
        handled
            .expect("subscribes")
            .handle(|_| std::future::pending()),
    );
    // Whether this is dropped halfway or is done at once, nothing of it is left.
    drop(broker.subscribe([topic.clone()], options).now_or_never());
    for payload in ["two", "three", "four"] {
        publish(&broker, &topic, payload).await;
    }
    for payload in ["one", "two", "three", "four"] {
        assert_eq!(message(&mut staying).await.payload, payload);
    }
}

/// However many publish at a time, what one of them sends arrives in its order, over all topics.
pub async fn messages_arrive_in_the_order_of_their_publisher(broker: impl Broker) {
    const PUBLISHERS: u32 = 4;
    const MESSAGES: u32 = 200;
    let [left, right] = topics();
    let broker = Arc::new(broker);
    let options = Options::default().with_capacity((PUBLISHERS * MESSAGES) as usize);
    let both = [left.clone(), right.clone()];
    let mut subscription = broker
        .subscribe(both.clone(), options)
        .await
        .expect("subscribes");
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (broker, both) = (Arc::clone(&broker), both.clone());
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                let topic = &both[(number % 2) as usize];
                publish(&*broker, topic, format!("{publisher} {number}")).await;
            }
        });
    }
    let mut next = HashMap::new();
    for _ in 0..PUBLISHERS * MESSAGES {
        let payload = message(&mut subscription).await.payload;
        let text = String::from_utf8(payload.into()).expect("text was sent");
        let (publisher, number) = text.split_once(' ').expect("two numbers were sent");
        let expected = next.entry(publisher.to_owned()).or_insert(0);
        assert_eq!(number.parse(), Ok(*expected), "of publisher {publisher}");
        *expected += 1;
    }
    tasks.join_all().await;
}

/// Quotes, NUL, bytes that are no text, nothing at all, and 64 KiB.
pub async fn payloads_arrive_byte_for_byte(broker: impl Broker) {
    let [topic] = topics();
    let mut subscription = subscribe(&broker, &[&topic]).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads: [Bytes; 7] = [
        "".into(),
        r#"'; NOTIFY "x", 'y'; -- \' $1 %s"#.into(),
        "a\0b\r\n\r\n$5\r\n".into(),
        "é✓ \u{1F4E8}".into(),
        every_byte.repeat(30).into(),
        every_byte.repeat(256).into(),
        "x".repeat(8000).into(),
    ];
    for payload in &payloads {
        publish(&broker, &topic, payload.clone()).await;
    }
    for payload in &payloads {
        let arrived = message(&mut subscription).await.payload;
        assert!(arrived == payload, "{} bytes arrived", arrived.len());
    }
}

/// Topics as long as they may be, which differ in the last byte or in case, and odd characters.
pub async fn long_topics_are_told_apart(broker: impl Broker) {
    let [short] = topics();
    let filler = "x".repeat(MAX_TOPIC_BYTES - short.as_str().len() - 1);
    let names = ["a", "b", "A"].map(|last| format!("{short}{filler}{last}"));
    let odd = format!("{short}\"'; DROP é");
    let mut subscriptions = Vec::new();
    for name in names.iter().chain([&odd]) {
        let topic: Topic = name.parse().expect("a valid topic");
        let subscription = subscribe(&broker, &[&topic]).await;
        subscriptions.push((topic, subscription));
    }
    for (topic, _) in &subscriptions {
        publish(&broker, topic, topic.to_string()).await;
    }
    for (topic, subscription) in &mut subscriptions {
        publish(&broker, topic, "end").await;
        let first = message(subscription).await;
        assert_eq!(first, Message::new(topic.clone(), topic.to_string()));
        assert_eq!(message(subscription).await.payload, "end");
    }
}

/// A handler that does not return holds up neither its publisher nor other subscriptions.
pub async fn a_slow_handler_delays_nobody(broker: impl Broker) {
    const MESSAGES: u32 = 500;
    let [topic] = topics();
    let started = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&started);
    let slow = subscribe(&broker, &[&topic]).await.handle(move |_| {
        signal.add_permits(1);
        std::future::pending()
    });
    let options = Options::default().with_capacity(MESSAGES as usize + 1);
    let mut quick = broker
        .subscribe([topic.clone()], options)
        .await
        .expect("subscribes");
    publish(&broker, &topic, "start").await;
    within("the handler to be called", started.acquire())
        .await
        .expect("never closed")
        .forget();
    for number in 0..MESSAGES {
        publish(&broker, &topic, number.to_string()).await;
    }
    assert_eq!(message(&mut quick).await.payload, "start");
    for number in 0..MESSAGES {
        assert_eq!(message(&mut quick).await.payload, number.to_string());
    }
    assert_eq!(
        started.available_permits(),
        0,
        "called while it was running"
    );
    drop(slow);
}

/// With [`Overflow::DropOldest`] the newest messages are there, and what is missing is counted where
/// it is missing.
pub async fn the_oldest_make_room_and_every_loss_is_counted(broker: impl Broker) {
    let account = overflow(broker, Overflow::DropOldest).await;
    assert_eq!(account.last(), Some(&Some(TOTAL - 1)), "{account:?}");
    assert!(account.iter().flatten().count() < TOTAL, "{account:?}");
}

/// With [`Overflow::DropNewest`] the first messages are there, and what is missing is counted where
/// it is missing.
pub async fn the_newest_are_dropped_and_every_loss_is_counted(broker: impl Broker) {
    let account = overflow(broker, Overflow::DropNewest).await;
    let first: Vec<_> = (0..CAPACITY).map(Some).collect();
    assert_eq!(account[..CAPACITY], first, "{account:?}");
    assert!(account.iter().flatten().count() < TOTAL, "{account:?}");
}

/// With [`Overflow::Wait`] a subscriber that reads in time misses nothing.
pub async fn nothing_is_lost_when_there_is_room_in_time(broker: impl Broker) {
    let [topic] = topics();
    let options = Options::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(PATIENCE));
    let mut subscription = broker
        .subscribe([topic.clone()], options)
        .await
        .expect("subscribes");
    let publishing = async {
        for number in 0..TOTAL {
            publish(&broker, &topic, number.to_string()).await;
        }
    };
    let reading = async {
        for number in 0..TOTAL {
            assert_eq!(message(&mut subscription).await.payload, number.to_string());
        }
    };
    tokio::join!(publishing, reading);
}

/// With [`Overflow::Wait`] a subscriber that does not read is told what it missed.
pub async fn waiting_for_room_ends_and_every_loss_is_counted(broker: impl Broker) {
    let account = overflow(broker, Overflow::Wait(Duration::from_millis(5))).await;
    let first: Vec<_> = (0..CAPACITY).map(Some).collect();
    assert_eq!(account[..CAPACITY], first, "{account:?}");
}

/// No lock is held while a handler runs: it can use the broker that called it.
pub async fn a_handler_may_subscribe_and_publish(broker: impl Broker) {
    let [question, answer] = topics();
    let broker = Arc::new(broker);
    let (report, mut reports) = mpsc::channel(1);
    let (asked, answers) = (Arc::clone(&broker), answer.clone());
    let listener = subscribe(&*broker, &[&question]).await.handle(move |_| {
        let (broker, answer, report) = (Arc::clone(&asked), answers.clone(), report.clone());
        async move {
            let mut inner = subscribe(&*broker, &[&answer]).await;
            publish(&*broker, &answer, "yes").await;
            let payload = message(&mut inner).await.payload;
            report.send(payload).await.expect("the test reads");
        }
    });
    publish(&*broker, &question, "?").await;
    let report = within("the handler's answer", reports.recv()).await;
    assert_eq!(report.as_deref(), Some(&b"yes"[..]));
    listener.stop().await;
}

/// A panic ends one call and not the subscription.
pub async fn a_handler_that_panics_is_called_again(broker: impl Broker) {
    let [topic] = topics();
    let (report, mut reports) = mpsc::channel(1);
    let listener = subscribe(&broker, &[&topic]).await.handle(move |received| {
        let report = report.clone();
        async move {
            assert!(payload(&received) != "panic", "as the test wants it");
            report.send(received).await.expect("the test reads");
        }
    });
    publish(&broker, &topic, "panic").await;
    publish(&broker, &topic, "go on").await;
    let report = within("the handler to be called again", reports.recv()).await;
    assert_eq!(payload(&report.expect("the handler has it")), "go on");
    listener.stop().await;
}

/// Stopping a listener waits for the handler, and loses nothing that has arrived.
pub async fn a_stopped_listener_has_handled_everything(broker: impl Broker) {
    let [topic] = topics();
    let (started, mut starts) = mpsc::channel(1);
    let go_on = Arc::new(Semaphore::new(0));
    let (gate, handled) = (Arc::clone(&go_on), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&handled);
    let mut witness = subscribe(&broker, &[&topic]).await;
    let listener = subscribe(&broker, &[&topic]).await.handle(move |_| {
        let (gate, count, started) = (Arc::clone(&gate), Arc::clone(&count), started.clone());
        async move {
            started.send(()).await.expect("the test reads");
            gate.acquire().await.expect("never closed").forget();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    publish(&broker, &topic, "one").await;
    within("the first call", starts.recv()).await;
    publish(&broker, &topic, "two").await;
    publish(&broker, &topic, "three").await;
    // Whoever has seen the third knows that all have the second.
    for _ in 0..3 {
        message(&mut witness).await;
    }
    go_on.add_permits(3);
    let reading = async { while starts.recv().await.is_some() {} };
    within("the listener to stop", async {
        tokio::join!(listener.stop(), reading)
    })
    .await;
    let handled = handled.load(Ordering::Relaxed);
    assert!((2..=3).contains(&handled), "{handled} calls ended");

    publish(&broker, &topic, "four").await;
    assert_eq!(message(&mut witness).await.payload, "four");
}

/// Calls on a closed broker, and on what it has made, answer so; subscriptions and listeners end.
pub async fn closing_ends_everything(broker: impl Broker) {
    let [topic, other] = topics();
    let mut subscription = subscribe(&broker, &[&topic]).await;
    let listener = subscribe(&broker, &[&topic]).await.handle(|_| async {});
    publish(&broker, &topic, "before").await;
    assert_eq!(message(&mut subscription).await.payload, "before");

    within("the broker to close", broker.close()).await;
    let published = broker.publish(&topic, "after").await;
    assert!(matches!(published, Err(Error::Closed)), "{published:?}");
    let subscribed = broker.subscribe([topic.clone()], Options::default()).await;
    assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
    let subscribed = broker.subscribe([], Options::default()).await;
    assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
    let joined = subscription.subscribe(&other).await;
    assert!(matches!(joined, Err(Error::Closed)), "{joined:?}");
    let left = subscription.unsubscribe(&topic).await;
    assert!(matches!(left, Err(Error::Closed)), "{left:?}");
    let ended = within("the subscription to end", subscription.recv()).await;
    assert_eq!(ended, None);
    within("the listener to end", listener.stop()).await;
    within("the broker to close again", broker.close()).await;
}

/// Publishers that meet a broker in the middle of closing are answered, and nothing panics.
pub async fn closing_during_publishes_is_answered(broker: impl Broker) {
    let [topic] = topics();
    let broker = Arc::new(broker);
    let mut subscription = subscribe(&*broker, &[&topic]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        tasks.spawn(async move {
            loop {
                if let Err(error) = broker.publish(&topic, "again").await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..100 {
        within("a message", subscription.recv()).await;
    }
    within("the broker to close", broker.close()).await;
    while let Some(ended) = within("the publishers to end", tasks.join_next()).await {
        let error = ended.expect("no publisher panics");
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
    within("the subscription to end", async {
        while subscription.recv().await.is_some() {}
    })
    .await;
}

/// How long a broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many messages the subscription of [`overflow`] has room for.
const CAPACITY: usize = 4;

/// How many are published to it.
const TOTAL: usize = 12;

/// Publishes more than fits to a subscription that does not read until all have been sent, and
/// answers what it then finds: the number of a message, or `None` for each that is missing.
///
/// A report of losses that is wrong, or in the wrong place, fails here.
async fn overflow(broker: impl Broker, overflow: Overflow) -> Vec<Option<usize>> {
    let [topic] = topics();
    let options = Options::default()
        .with_capacity(CAPACITY)
        .with_overflow(overflow);
    let mut slow = broker
        .subscribe([topic.clone()], options)
        .await
        .expect("subscribes");
    let mut witness = subscribe(&broker, &[&topic]).await;
    for number in 0..TOTAL {
        publish(&broker, &topic, number.to_string()).await;
    }
    // Whoever has the last one knows that all others have at least the one before.
    for _ in 0..TOTAL {
        message(&mut witness).await;
    }
    let mut account = Vec::new();
    while account.len() < TOTAL {
        match received(&mut slow).await {
            Received::Message(message) => {
                assert_eq!(message.payload, account.len().to_string(), "{account:?}");
                account.push(Some(account.len()));
            }
            Received::Lagged(lagged) => {
                let missed = lagged.missed().expect("the broker was not interrupted");
                let missed = usize::try_from(missed).expect("not more than were sent");
                account.extend(std::iter::repeat_n(None, missed));
            }
        }
    }
    account
}

/// Topics that nobody else has.
fn topics<const N: usize>() -> [Topic; N] {
    static LAST: AtomicU64 = AtomicU64::new(0);
    std::array::from_fn(|_| {
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        Namespace::new("conformance", "test")
            .and_then(|namespace| namespace.topic(name))
            .expect("a valid name")
    })
}

async fn subscribe(broker: &impl Broker, topics: &[&Topic]) -> Subscription {
    let topics: Vec<Topic> = topics.iter().copied().cloned().collect();
    let subscribed = broker.subscribe(topics, Options::default());
    within("a subscription", subscribed)
        .await
        .expect("subscribes")
}

async fn publish(broker: &impl Broker, topic: &Topic, payload: impl Into<Bytes> + Send) {
    let published = broker.publish(topic, payload);
    within("a publish", published).await.expect("publishes");
}

async fn received(subscription: &mut Subscription) -> Received {
    let received = within("a message", subscription.recv()).await;
    received.expect("the subscription goes on")
}

async fn message(subscription: &mut Subscription) -> Message {
    match received(subscription).await {
        Received::Message(message) => message,
        Received::Lagged(lagged) => panic!("expected a message, but {lagged}"),
    }
}

/// The payload as text; empty for a report of losses.
fn payload(received: &Received) -> &str {
    match received {
        Received::Message(message) => std::str::from_utf8(&message.payload).unwrap_or_default(),
        Received::Lagged(_) => "",
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T> + Send) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
