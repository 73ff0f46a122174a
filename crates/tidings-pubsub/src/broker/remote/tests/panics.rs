//! Code of the program that panics on the tasks of a broker.

use tidings_test_support::Panics;

use super::*;
use crate::Overflow;

/// Subscriptions that read nothing and have room for one message.
async fn full(broker: &Broker, count: usize) -> Vec<Subscription> {
    let options = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::DropNewest);
    let mut all = Vec::new();
    for _ in 0..count {
        let subscribed = broker.remote.subscribe(vec![topic("a")], options);
        all.push(subscribed.await.unwrap());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_silences_no_subscription() {
    let panics = Panics::at("tidings_pubsub");
    let _recording = metrics::set_default_local_recorder(&panics);
    let broker = Broker::start();
    // More than the caller of a message serves by itself.
    for readers in [1, 17] {
        let posting = Arc::clone(&broker.remote).make_postings();
        let _posting = AbortOnDropHandle::new(tokio::spawn(posting));
        let _full = full(&broker, readers).await;
        let mut other = broker.subscribe(&["b"]).await.unwrap();
        for _ in 0..2 {
            broker.server.send("a", "no room");
            settle(Duration::from_millis(1)).await;
        }
        let before = panics.count();
        assert!(before > 0, "{readers}");
        broker.server.send("b", "for the other");
        settle(Duration::from_millis(1)).await;
        assert_eq!(now(&mut other), [Ok("for the other".to_owned())]);
        // What it was given is counted, too.
        assert_eq!(panics.count(), before + 1);
    }
    assert_eq!(broker.server.account().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_does_not_keep_a_connection_from_being_made_again() {
    let panics = Panics::at("tidings_pubsub");
    let _default = tidings_test_support::set_default(panics.clone());
    let broker = Broker::start();
    let mut subscription = broker.subscribe(&["a"]).await.unwrap();
    for times in 1..=2 {
        broker.server.account().is_down = true;
        broker.server.cut();
        settle(Duration::from_secs(60)).await;
        broker.server.account().is_down = false;
        settle(Duration::from_secs(60)).await;
        broker.server.send("a", "again");
        settle(Duration::from_millis(1)).await;
        let expected = [Err(Lagged::unknown()), Ok("again".to_owned())];
        assert_eq!(now(&mut subscription), expected);
        // The loss, and that it is over.
        assert_eq!(panics.count(), 2 * times);
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_on_a_connection_is_reported_as_a_loss_and_ends_no_task() {
    let broker = Broker::start();
    let mut subscription = broker.subscribe(&["a"]).await.unwrap();
    broker.server.send(
        "",
        "no topic has this name, on which the test's session panics",
    );
    settle(Duration::from_secs(60)).await;
    broker.server.send("a", "again");
    settle(Duration::from_millis(1)).await;
    let expected = [Err(Lagged::unknown()), Ok("again".to_owned())];
    assert_eq!(now(&mut subscription), expected);
    drop(broker.subscribe(&["b"]).await.unwrap());
}
