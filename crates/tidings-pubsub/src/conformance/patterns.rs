use std::sync::Arc;

use super::support::{PATIENCE, message, namespace, publish, subscribe, within};
use crate::{
    Broker, Error, MAX_TOPIC_BYTES, Message, Namespace, Overflow, Pattern, SubscribeOptions,
    Subscription, Topic,
};

/// Asking for a pattern where there are none is an error of its own, and harms nothing.
pub async fn a_broker_without_patterns_says_so(broker: Arc<dyn Broker>) {
    let namespace = namespace();
    let (topic, all) = (topic(&namespace, "a"), pattern(&namespace, "*"));
    let mut subscription = subscribe(&broker, &[&topic]).await;
    let asked = subscription.topics().add_pattern(&all).await;
    assert!(matches!(asked, Err(Error::NoPatterns)), "{asked:?}");
    let left = subscription.topics().remove_pattern(&all).await;
    assert!(matches!(left, Err(Error::NoPatterns)), "{left:?}");
    publish(&broker, &topic, "one").await;
    assert_eq!(message(&mut subscription).await.payload(), "one");
}

/// A pattern brings all topics that match, also those that others have, and no other: not one of another
/// namespace, and nothing by characters that mean something to the engine alone.
pub async fn a_pattern_brings_the_topics_that_match(broker: Arc<dyn Broker>) {
    let (here, elsewhere) = (namespace(), namespace());
    let short = topic(&here, "orders.x").as_str().len();
    let long = format!("orders.x{}", "x".repeat(MAX_TOPIC_BYTES - short));
    for (text, matching, others) in [
        (
            "orders.*",
            &["orders.", "orders.paid", "orders.a.b"][..],
            &["orders", "xorders.a"][..],
        ),
        (
            "*.paid",
            &["orders.paid", ".paid"],
            &["paid", "orders.paid.x"],
        ),
        (
            "a*b*c",
            &["abc", "a\"'b; ✓c", "abbcc"],
            &["abd", "acb", "xabc"],
        ),
        (
            "a?[a-c]\\*é",
            &["a?[a-c]\\é", "a?[a-c]\\✓é"],
            &["axaé", "axbxé", "a?[a-c]é"],
        ),
        ("exact", &["exact"], &["exact.", "Exact"]),
        ("orders.*", &[&long], &[]),
    ] {
        let mut subscription = subscribe(&broker, &[]).await;
        join(&subscription, &pattern(&here, text)).await;
        for name in others {
            publish(&broker, &topic(&here, name), "no").await;
        }
        for name in matching {
            publish(&broker, &topic(&elsewhere, name), "elsewhere").await;
            publish(&broker, &topic(&here, name), "yes").await;
        }
        for name in matching {
            let expected = Message::new(topic(&here, name), "yes");
            assert_eq!(message(&mut subscription).await, expected, "of {text}");
        }
        assert_nothing_more(&broker, &here, &mut subscription).await;
    }
}

/// However many of its topics and patterns a message belongs to, a subscription gets it once, and so
/// do all others.
pub async fn a_message_comes_once_by_topics_and_patterns(broker: Arc<dyn Broker>) {
    let namespace = namespace();
    let ours = topic(&namespace, "orders.paid");
    let patterns = ["*", "orders.*", "*.paid", "**"].map(|it| pattern(&namespace, it));
    let mut all = subscribe(&broker, &[&ours]).await;
    let mut by_topic = subscribe(&broker, &[&ours]).await;
    let mut by_pattern = subscribe(&broker, &[]).await;
    for pattern in &patterns {
        join(&all, pattern).await;
    }
    // Asking again changes nothing.
    join(&all, &patterns[0]).await;
    join(&by_pattern, &patterns[1]).await;
    for payload in ["one", "two"] {
        publish(&broker, &ours, payload).await;
    }
    for subscription in [&mut all, &mut by_topic, &mut by_pattern] {
        for payload in ["one", "two"] {
            let expected = Message::new(ours.clone(), payload);
            assert_eq!(message(subscription).await, expected);
        }
    }
    for subscription in [&mut all, &mut by_topic, &mut by_pattern] {
        assert_nothing_more(&broker, &namespace, subscription).await;
    }
}

/// Topics and patterns are given up each by itself, and what one subscription gives up is nothing to
/// the others.
pub async fn giving_up_a_pattern_leaves_all_else(broker: Arc<dyn Broker>) {
    let namespace = namespace();
    let [left, right] = ["left", "right"].map(|it| topic(&namespace, it));
    let [all, l, never] = ["*", "l*", "never*"].map(|it| pattern(&namespace, it));
    let mut subscription = subscribe(&broker, &[&left]).await;
    let mut other = subscribe(&broker, &[]).await;
    for pattern in [&all, &l] {
        join(&subscription, pattern).await;
        join(&other, pattern).await;
    }
    leave(&subscription, &never).await;
    let mut expected = Vec::new();
    let mut round = async |payload: &'static str, arrives: &[&Topic]| {
        publish(&broker, &left, payload).await;
        publish(&broker, &right, payload).await;
        let arrived = arrives
            .iter()
            .map(|it| Message::new((*it).clone(), payload));
        expected.extend(arrived);
    };
    round("with all", &[&left, &right]).await;
    leave(&subscription, &l).await;
    round("with a topic and a pattern", &[&left, &right]).await;
    subscription
        .topics()
        .remove(&left)
        .await
        .expect("unsubscribes");
    round("with a pattern", &[&left, &right]).await;
    join(&subscription, &l).await;
    leave(&subscription, &all).await;
    round("with the other pattern", &[&left]).await;
    leave(&subscription, &l).await;
    round("with nothing", &[]).await;
    subscription.topics().add(&right).await.expect("subscribes");
    round("with a topic", &[&right]).await;
    for message_expected in expected {
        assert_eq!(message(&mut subscription).await, message_expected);
    }
    for payload in [
        "with all",
        "with a topic and a pattern",
        "with a pattern",
        "with the other pattern",
        "with nothing",
        "with a topic",
    ] {
        for topic in [&left, &right] {
            let expected = Message::new(topic.clone(), payload);
            assert_eq!(message(&mut other).await, expected);
        }
    }
}

/// While topics and other patterns come and go, a message that is wanted all the time comes once and
/// in its order.
pub async fn nothing_is_lost_or_doubled_while_topics_and_patterns_change(broker: Arc<dyn Broker>) {
    const MESSAGES: usize = 500;
    let namespace = namespace();
    let topics = ["a", "ab"].map(|it| topic(&namespace, it));
    let [all, a, b] = ["*", "a*", "*b"].map(|it| pattern(&namespace, it));
    let options = SubscribeOptions::default().with_capacity(MESSAGES);
    let mut subscription = broker
        .subscribe(Vec::new(), options)
        .await
        .expect("subscribes");
    join(&subscription, &all).await;
    let publishing = {
        let (broker, topics) = (Arc::clone(&broker), topics.clone());
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                publish(&broker, &topics[number % 2], number.to_string()).await;
            }
        })
    };
    while !publishing.is_finished() {
        for topic in &topics {
            subscription.topics().add(topic).await.expect("subscribes");
        }
        join(&subscription, &a).await;
        leave(&subscription, &b).await;
        for topic in &topics {
            subscription
                .topics()
                .remove(topic)
                .await
                .expect("unsubscribes");
        }
        leave(&subscription, &a).await;
        join(&subscription, &b).await;
    }
    publishing.await.expect("publishes");
    for number in 0..MESSAGES {
        let expected = Message::new(topics[number % 2].clone(), number.to_string());
        assert_eq!(message(&mut subscription).await, expected);
    }
}

/// A subscription that is dropped takes its patterns with it, and closing ends those that are left.
pub async fn patterns_end_with_their_subscription_and_their_broker(broker: Arc<dyn Broker>) {
    let namespace = namespace();
    let (a, all) = (topic(&namespace, "a"), pattern(&namespace, "*"));
    // Were it still there, each publish would wait for its room.
    let options = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(PATIENCE * 10));
    let dropped = broker
        .subscribe(Vec::new(), options)
        .await
        .expect("subscribes");
    join(&dropped, &all).await;
    let listener = subscribe(&broker, &[]).await.handle(|_| async {});
    let asked = listener.topics().add_pattern(&all);
    within("a pattern", asked).await.expect("subscribes");
    let left = listener.topics().remove_pattern(&all);
    within("a pattern", left).await.expect("unsubscribes");
    let mut staying = subscribe(&broker, &[]).await;
    join(&staying, &all).await;
    drop(dropped);
    for payload in ["one", "two", "three"] {
        publish(&broker, &a, payload).await;
        assert_eq!(message(&mut staying).await.payload(), payload);
    }

    within("the broker to close", broker.close()).await;
    let ended = within("the subscription to end", staying.recv()).await;
    assert_eq!(ended, None);
    let asked = staying.topics().add_pattern(&all).await;
    assert!(matches!(asked, Err(Error::Closed)), "{asked:?}");
    let left = staying.topics().remove_pattern(&all).await;
    assert!(matches!(left, Err(Error::Closed)), "{left:?}");
}

fn topic(namespace: &Namespace, name: &str) -> Topic {
    namespace.topic(name).expect("a valid name")
}

fn pattern(namespace: &Namespace, name: &str) -> Pattern {
    namespace.pattern(name).expect("a valid name")
}

async fn join(subscription: &Subscription, pattern: &Pattern) {
    let asked = subscription.topics().add_pattern(pattern);
    within("a pattern", asked).await.expect("subscribes");
}

async fn leave(subscription: &Subscription, pattern: &Pattern) {
    let left = subscription.topics().remove_pattern(pattern);
    within("a pattern", left).await.expect("unsubscribes");
}

/// A subscriber that has the end has all that came before.
async fn assert_nothing_more(
    broker: &Arc<dyn Broker>,
    namespace: &Namespace,
    subscription: &mut Subscription,
) {
    let end = topic(namespace, "the end");
    subscription.topics().add(&end).await.expect("subscribes");
    publish(broker, &end, "end").await;
    assert_eq!(message(subscription).await, Message::new(end, "end"));
}
