use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::{Broker, Message, Namespace, Received, SubscribeOptions, Subscription, Topic};

/// How long a broker may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace that no other test has.
pub(super) fn namespace() -> Namespace {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    // All are as long as each other.
    let name = format!("{}-{number:06}", std::process::id());
    Namespace::new("conformance", name).expect("a valid name")
}

/// Topics that no other test has.
pub(super) fn topics<const N: usize>() -> [Topic; N] {
    std::array::from_fn(|_| namespace().topic("topic").expect("a valid name"))
}

pub(super) async fn subscribe(broker: &Arc<dyn Broker>, topics: &[&Topic]) -> Subscription {
    let topics: Vec<Topic> = topics.iter().copied().cloned().collect();
    let subscribed = broker.subscribe(topics, SubscribeOptions::default());
    within("a subscription", subscribed)
        .await
        .expect("subscribes")
}

pub(super) async fn publish(
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    payload: impl Into<Bytes> + Send,
) {
    let published = broker.publish(topic, payload.into());
    within("a publish", published).await.expect("publishes");
}

pub(super) async fn received(subscription: &mut Subscription) -> Received {
    let received = within("a message", subscription.recv()).await;
    received.expect("the subscription goes on")
}

pub(super) async fn message(subscription: &mut Subscription) -> Message {
    match received(subscription).await {
        Received::Message(message) => message,
        Received::Lagged(lagged) => panic!("expected a message, but {lagged}"),
    }
}

/// The payload as text; empty for a report of losses.
pub(super) fn payload(received: &Received) -> &str {
    match received {
        Received::Message(message) => std::str::from_utf8(message.payload()).unwrap_or_default(),
        Received::Lagged(_) => "",
    }
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T> + Send) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
