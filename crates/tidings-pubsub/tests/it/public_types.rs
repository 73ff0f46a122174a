//! What a public type must be able to do, whatever it is for.

use std::fmt::Debug;
use std::sync::Arc;

use tidings_pubsub::{
    Broker, Error, Listener, Mailbox, MemoryBroker, Message, Pattern, SubscribeOptions,
    Subscription, Topic, Topics, Waiting,
};

fn is_public<T: Debug + Send + Sync>() {}

fn is_send<T: Send>(_: T) {}

#[test]
fn every_type_can_be_shared_and_shown() {
    is_public::<Error>();
    is_public::<Listener>();
    is_public::<Mailbox>();
    is_public::<MemoryBroker>();
    is_public::<Message>();
    is_public::<SubscribeOptions>();
    is_public::<Pattern>();
    is_public::<Subscription>();
    is_public::<Topic>();
    is_public::<Topics>();
    is_public::<Waiting>();
    #[cfg(feature = "postgres")]
    is_public::<(
        tidings_pubsub::postgres::PostgresBroker,
        tidings_pubsub::postgres::PostgresOptions,
    )>();
    #[cfg(feature = "redis")]
    is_public::<(
        tidings_pubsub::redis::RedisBroker,
        tidings_pubsub::redis::RedisOptions,
    )>();
}

#[test]
fn every_future_can_be_spawned() {
    fn of(
        broker: &Arc<dyn Broker>,
        mut subscription: Subscription,
        listener: Listener,
        topic: &Topic,
        pattern: &Pattern,
    ) {
        is_send(broker.publish(topic, "x".into()));
        is_send(broker.subscribe(Vec::new(), SubscribeOptions::default()));
        is_send(broker.close());
        is_send(subscription.topics().add(topic));
        is_send(subscription.topics().add_pattern(pattern));
        is_send(subscription.recv());
        is_send(listener.topics().add(topic));
        is_send(listener.stop());
    }
    // Never called: that it compiles is the test.
    let _: fn(&Arc<dyn Broker>, Subscription, Listener, &Topic, &Pattern) = of;
}

#[test]
fn errors_keep_their_cause() {
    let error = Error::backend(std::io::Error::other("the cable is out"));
    assert_eq!(error.to_string(), "the broker failed");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the cable is out");
}
