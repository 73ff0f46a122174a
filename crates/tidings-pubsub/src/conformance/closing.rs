use std::sync::Arc;

use super::support::{message, publish, subscribe, topics, within};
use crate::{Broker, Error, SubscribeOptions};

/// Calls on a closed broker, and on what it has made, return `Closed`; subscriptions and listeners
/// end.
pub async fn closing_ends_everything(broker: Arc<dyn Broker>) {
    let [topic, other] = topics();
    let mut subscription = subscribe(&broker, &[&topic]).await;
    let listener = subscribe(&broker, &[&topic]).await.handle(|_| async {});
    publish(&broker, &topic, "before").await;
    assert_eq!(message(&mut subscription).await.payload(), "before");

    within("the broker to close", broker.close()).await;
    let published = broker.publish(&topic, "after".into()).await;
    assert!(matches!(published, Err(Error::Closed)), "{published:?}");
    let subscribed = broker
        .subscribe(vec![topic.clone()], SubscribeOptions::default())
        .await;
    assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
    let subscribed = broker
        .subscribe(Vec::new(), SubscribeOptions::default())
        .await;
    assert!(matches!(subscribed, Err(Error::Closed)), "{subscribed:?}");
    let joined = subscription.topics().add(&other).await;
    assert!(matches!(joined, Err(Error::Closed)), "{joined:?}");
    let left = subscription.topics().remove(&topic).await;
    assert!(matches!(left, Err(Error::Closed)), "{left:?}");
    let ended = within("the subscription to end", subscription.recv()).await;
    assert_eq!(ended, None);
    within("the listener to end", listener.stop()).await;
    within("the broker to close again", broker.close()).await;
}

/// Publishers that call while the broker closes get a result, and nothing panics.
pub async fn a_publish_during_closing_gets_a_reply(broker: Arc<dyn Broker>) {
    let [topic] = topics();
    let mut subscription = subscribe(&broker, &[&topic]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        tasks.spawn(async move {
            loop {
                if let Err(error) = broker.publish(&topic, "again".into()).await {
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
        let is_named = matches!(error, Error::Closed | Error::OutcomeUnknown(_));
        assert!(is_named, "{error:?}");
    }
    within("the subscription to end", async {
        while subscription.recv().await.is_some() {}
    })
    .await;
}
