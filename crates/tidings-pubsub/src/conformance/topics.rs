use std::sync::Arc;

use futures_util::FutureExt;

use super::support::{PATIENCE, message, publish, subscribe, topics};
use crate::{Broker, Overflow, SubscribeOptions};

/// Asking for a topic again changes nothing.
pub async fn a_topic_that_is_asked_for_twice_arrives_once(broker: Arc<dyn Broker>) {
    let [topic] = topics();
    let mut subscription = subscribe(&broker, &[&topic, &topic]).await;
    subscription.topics().add(&topic).await.expect("subscribes");
    publish(&broker, &topic, "one").await;
    publish(&broker, &topic, "two").await;
    assert_eq!(message(&mut subscription).await.payload(), "one");
    assert_eq!(message(&mut subscription).await.payload(), "two");

    subscription
        .topics()
        .remove(&topic)
        .await
        .expect("unsubscribes");
    let [last] = topics();
    subscription.topics().add(&last).await.expect("subscribes");
    publish(&broker, &topic, "three").await;
    publish(&broker, &last, "four").await;
    assert_eq!(message(&mut subscription).await.payload(), "four");
}

/// A live subscription takes on topics, and gives up exactly the one that it names.
pub async fn topics_can_be_added_and_removed(broker: Arc<dyn Broker>) {
    let [first, second, third, never] = topics();
    let mut subscription = subscribe(&broker, &[]).await;
    for topic in [&first, &second, &third] {
        subscription.topics().add(topic).await.expect("subscribes");
    }
    subscription
        .topics()
        .remove(&second)
        .await
        .expect("unsubscribes");
    subscription
        .topics()
        .remove(&never)
        .await
        .expect("unsubscribes");
    for topic in [&first, &second, &third] {
        publish(&broker, topic, "hello").await;
    }
    assert_eq!(*message(&mut subscription).await.topic(), first);
    assert_eq!(*message(&mut subscription).await.topic(), third);

    subscription
        .topics()
        .add(&second)
        .await
        .expect("subscribes");
    publish(&broker, &second, "hello again").await;
    assert_eq!(message(&mut subscription).await.payload(), "hello again");
}

/// That one subscription gives up a topic is nothing to the others that have it.
pub async fn unsubscribing_one_leaves_the_others(broker: Arc<dyn Broker>) {
    let [topic, end] = topics();
    let mut leaving = subscribe(&broker, &[&topic, &end]).await;
    let mut staying = subscribe(&broker, &[&topic, &end]).await;
    leaving.topics().remove(&topic).await.expect("unsubscribes");
    publish(&broker, &topic, "news").await;
    publish(&broker, &end, "end").await;
    assert_eq!(message(&mut leaving).await.payload(), "end");
    assert_eq!(message(&mut staying).await.payload(), "news");
    assert_eq!(message(&mut staying).await.payload(), "end");
}

/// No publisher waits for a subscriber that has gone, and those that stay miss nothing.
pub async fn a_dropped_subscription_is_gone(broker: Arc<dyn Broker>) {
    let [topic] = topics();
    // Were it still there, each publish would wait for its room.
    let options = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(PATIENCE * 10));
    let dropped = broker.subscribe(vec![topic.clone()], options).await;
    let mut staying = subscribe(&broker, &[&topic]).await;
    publish(&broker, &topic, "one").await;
    drop(dropped.expect("subscribes"));
    let handled = broker.subscribe(vec![topic.clone()], options).await;
    drop(
        handled
            .expect("subscribes")
            .handle(|_| std::future::pending()),
    );
    // Whether this is dropped halfway or is done at once, nothing of it is left.
    drop(
        broker
            .subscribe(vec![topic.clone()], options)
            .now_or_never(),
    );
    for payload in ["two", "three", "four"] {
        publish(&broker, &topic, payload).await;
    }
    for payload in ["one", "two", "three", "four"] {
        assert_eq!(message(&mut staying).await.payload(), payload);
    }
}
