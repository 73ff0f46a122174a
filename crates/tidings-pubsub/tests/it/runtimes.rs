//! A runtime that ends before the broker that was made on it.

use tidings_pubsub::{Broker, Error, SubscribeOptions};
use tidings_test_support::soon;
use tokio::runtime::{Builder, Runtime};

use crate::faults::{publish, subscribe, topics};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn a_broker_whose_runtime_has_ended_is_closed<B: Broker>(broker: fn() -> B) {
    let (first, second) = (runtime(), runtime());
    let broker = first.block_on(async { broker() });
    let [topic] = topics(["topic"]);
    let mut subscription = second.block_on(async {
        publish(&broker, &topic, "before").await;
        subscribe(&broker, [&topic]).await
    });
    drop(first);
    second.block_on(async {
        assert_eq!(soon("the end", subscription.recv()).await, None);
        let subscribed = broker.subscribe(vec![topic.clone()], SubscribeOptions::default());
        let refused = soon("a reply", subscribed).await.map(drop);
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        let refused = soon("a reply", broker.publish(&topic, "after".into())).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        soon("the close", broker.close()).await;
    });
}

#[cfg(feature = "postgres")]
#[test]
fn regression_a_postgres_broker_whose_runtime_has_ended_is_closed() {
    a_broker_whose_runtime_has_ended_is_closed(crate::postgres::broker);
}

#[cfg(feature = "redis")]
#[test]
fn regression_a_redis_broker_whose_runtime_has_ended_is_closed() {
    a_broker_whose_runtime_has_ended_is_closed(crate::redis::broker);
}
