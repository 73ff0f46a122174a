use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::support::{message, publish, subscribe, topics};
use crate::{Broker, MAX_TOPIC_BYTES, Message, SubscribeOptions, Topic};

/// Everyone who has the topic gets each message, in order, in full.
pub async fn every_subscription_gets_its_own_copy(broker: Arc<dyn Broker>) {
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

/// Publishing without subscribers succeeds, and a later subscriber does not get the message.
pub async fn a_message_without_subscribers_is_dropped(broker: Arc<dyn Broker>) {
    let [topic] = topics();
    publish(&broker, &topic, "to nobody").await;
    let mut late = subscribe(&broker, &[&topic]).await;
    publish(&broker, &topic, "to you").await;
    assert_eq!(message(&mut late).await.payload(), "to you");
}

/// A subscription gets messages of its own topics alone.
pub async fn messages_of_other_topics_do_not_arrive(broker: Arc<dyn Broker>) {
    let [wanted, other] = topics();
    let mut subscription = subscribe(&broker, &[&wanted]).await;
    publish(&broker, &other, "not for you").await;
    publish(&broker, &wanted, "for you").await;
    assert_eq!(message(&mut subscription).await.payload(), "for you");
}

/// However many publish at a time, what one of them sends arrives in its order, over all topics.
pub async fn messages_arrive_in_the_order_of_their_publisher(broker: Arc<dyn Broker>) {
    const PUBLISHERS: u32 = 4;
    const MESSAGES: u32 = 200;
    let [left, right] = topics();
    let options = SubscribeOptions::default().with_capacity((PUBLISHERS * MESSAGES) as usize);
    let both = [left.clone(), right.clone()];
    let mut subscription = broker
        .subscribe(both.to_vec(), options)
        .await
        .expect("subscribes");
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (broker, both) = (Arc::clone(&broker), both.clone());
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                let topic = &both[(number % 2) as usize];
                publish(&broker, topic, format!("{publisher} {number}")).await;
            }
        });
    }
    let mut next = HashMap::new();
    for _ in 0..PUBLISHERS * MESSAGES {
        let message = message(&mut subscription).await;
        let text = std::str::from_utf8(message.payload()).expect("text was sent");
        let (publisher, number) = text.split_once(' ').expect("two numbers were sent");
        let expected = next.entry(publisher.to_owned()).or_insert(0);
        assert_eq!(number.parse(), Ok(*expected), "of publisher {publisher}");
        *expected += 1;
    }
    tasks.join_all().await;
}

/// Quotes, NUL, bytes that are no text, nothing at all, and 64 KiB.
pub async fn payloads_arrive_byte_for_byte(broker: Arc<dyn Broker>) {
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
        let arrived = message(&mut subscription).await;
        let length = arrived.payload().len();
        assert!(arrived.payload() == payload, "{length} bytes arrived");
    }
}

/// Topics as long as they may be, which differ in the last byte or in case, and odd characters.
pub async fn long_topics_are_distinguished(broker: Arc<dyn Broker>) {
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
        assert_eq!(message(subscription).await.payload(), "end");
    }
}
