use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc};

use super::support::{message, payload, publish, subscribe, topics, within};
use crate::{Broker, Message};

/// No lock is held while a handler runs: it can use the broker that called it.
pub async fn a_handler_may_subscribe_and_publish(broker: Arc<dyn Broker>) {
    let [question, reply] = topics();
    let (report, mut reports) = mpsc::channel(1);
    let (asked, replies) = (Arc::clone(&broker), reply.clone());
    let listener = subscribe(&broker, &[&question]).await.handle(move |_| {
        let (broker, reply, report) = (Arc::clone(&asked), replies.clone(), report.clone());
        async move {
            let mut inner = subscribe(&broker, &[&reply]).await;
            publish(&broker, &reply, "yes").await;
            let reply = message(&mut inner).await;
            report.send(reply).await.expect("the test reads");
        }
    });
    publish(&broker, &question, "?").await;
    let report = within("the handler's reply", reports.recv()).await;
    assert_eq!(report, Some(Message::new(reply, "yes")));
    listener.stop().await;
}

/// A panic ends one call and not the subscription.
pub async fn a_handler_that_panics_is_called_again(broker: Arc<dyn Broker>) {
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
pub async fn a_stopped_listener_has_handled_everything(broker: Arc<dyn Broker>) {
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
    // A handler that has seen the third knows that all have the second.
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
    assert_eq!(message(&mut witness).await.payload(), "four");
}
