//! `cargo run -p tidings-stream --features sqlite --example orders`: one stream, two groups, and a
//! message that dies and comes back, on a file that is thrown away in the end.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::sync::Arc;
use std::time::Duration;

use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    BatchError, HandlerError, Message, NewMessage, Redrive, RetryDelay, ServiceConfig, StartFrom,
    Streams, SubscribeOptions,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let database = Database::open(folder.path().join("orders.db"), &Options::default())?;
    let engine = SqliteEngine::open(database.clone()).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());

    // Repeating this is harmless: the key is good for an hour.
    let order =
        NewMessage::new("three apples").with_publish_key("order-17", Duration::from_secs(60 * 60));
    let first = streams.publish("orders", order.clone()).await?;
    assert_eq!(streams.publish("orders", order).await?, first);
    let more = ["one pear", "nothing", "two plums"].map(NewMessage::new);
    streams.publish_batch("orders", more.to_vec()).await?;

    // Two groups: each gets every order. This one takes them one by one, and cannot do them all.
    let options = SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_concurrency(4)
        .with_max_retries(1)
        .with_retry_delay(RetryDelay::fixed(Duration::from_millis(10)));
    let billing = streams
        .subscribe("orders", "billing", options, |order: Message| async move {
            let attempt = order.attempt;
            println!("billing: {:?}, attempt {attempt}", order.payload);
            if order.payload == "nothing" {
                return Err(HandlerError::retry("there is nothing to bill"));
            }
            Ok(())
        })
        .await?;
    let options = SubscribeOptions::default().with_start(StartFrom::Earliest);
    let search = streams
        .subscribe_batch(
            "orders",
            "search",
            options,
            |orders: Vec<Message>| async move {
                println!("search: indexes {} orders at once", orders.len());
                Ok::<(), BatchError>(())
            },
        )
        .await?;

    while streams.stats("orders.dead").await?.messages == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for letter in streams.read("orders.dead", None, 10).await? {
        println!("dead: {:?} {:?}", letter.payload, letter.headers);
    }
    billing.pause();
    let redriven = streams.redrive("orders.dead", Redrive::default()).await?;
    println!("brought back: {}", redriven.moved);

    let stats = streams.stats("orders").await?;
    for group in stats.groups {
        println!("{}: at {}, {} to go", group.name, group.position, group.lag);
    }
    println!(
        "closed: {:?} {:?}",
        billing.close().await,
        search.close().await
    );
    // Whatever other consumers there are is closed before the database below them.
    streams.close().await;
    database.close().await;
    Ok(())
}
