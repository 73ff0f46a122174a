//! `cargo run -p tidings-pubsub --example topics`
//!
//! One topic, a subscriber that reads at once, and one that is too slow for its mailbox and learns what it lost.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use tidings_pubsub::{Broker, MemoryBroker, Namespace, Received, SubscribeOptions, Subscriber};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = MemoryBroker::new();
    let orders = Namespace::default().topic("orders")?;
    let (done, mut handled) = tokio::sync::mpsc::channel(8);
    let fast = broker.subscribe(vec![orders.clone()], SubscribeOptions::default());
    let fast = fast.await?.handle(move |received| {
        let done = done.clone();
        async move {
            println!("fast: {received:?}");
            let _nobody_waits = done.send(()).await;
        }
    });
    let small = SubscribeOptions::default().with_capacity(2);
    let mut slow = broker.subscribe(vec![orders.clone()], small).await?;

    for number in 1..=5 {
        let paid = format!("order {number} was paid");
        broker.publish(&orders, paid.into()).await?;
    }
    for _ in 1..=5 {
        handled.recv().await;
    }
    fast.stop().await;
    broker.close().await;
    while let Some(received) = slow.recv().await {
        match received {
            Received::Message(message) => println!("slow: {:?}", message.payload()),
            Received::Lagged(lagged) => println!("slow: {lagged}"),
        }
    }
    Ok(())
}
