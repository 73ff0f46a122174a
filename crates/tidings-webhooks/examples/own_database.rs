//! Sends webhooks from an application's own database: an order and its event are one transaction.
//!
//! `cargo run -p tidings-webhooks --features sqlite --example own_database -- http://127.0.0.1:8080/hook`

#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{EventType, Payload};
use tidings_sqlite::Database;
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{ServiceConfig, Streams};
use tidings_webhooks::sqlite::{SqliteStore, accept_in};
use tidings_webhooks::{DeliveryQuery, Webhooks};
use tidings_webhooks::{EndpointSettings, NewEndpoint, Options, Owner, StoreError, WebhookEvent};

const ORDERS: &[&str] = &["CREATE TABLE orders (number INTEGER PRIMARY KEY, what TEXT NOT NULL)"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("expected a URL to post to")?;
    let database = Database::open("shop.db", &tidings_sqlite::Options::default())?;
    database.migrate("shop", ORDERS).await?;

    let engine = SqliteEngine::open(database.clone()).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let store = Arc::new(SqliteStore::open(database.clone()).await?);
    let webhooks = Webhooks::start(store, streams, Options::default()).await?;
    let new = NewEndpoint::new(Owner::Operator, EndpointSettings::new(url));
    let (endpoint, secret) = webhooks.create_endpoint(new).await?;
    println!("{} is signed with {}", endpoint.id, *secret.expose());

    // The event is sent if the order is stored, and only then, whatever crashes when.
    let stream = webhooks.stream().clone();
    let payload = Payload::from_value(&"three apples")?;
    let event = WebhookEvent::new(&EventType::new("order.placed")?, payload);
    database
        .write(move |tx| {
            tx.execute("INSERT INTO orders (what) VALUES ('three apples')", [])?;
            accept_in(tx, &stream, &[event])?;
            Ok::<_, StoreError>(())
        })
        .await?;
    webhooks.wake();

    // Whatever is not sent within the next seconds goes out in the next run.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for delivery in webhooks.deliveries(&DeliveryQuery::newest(5)).await? {
        println!("{}: {:?}", delivery.event_id, delivery.state);
    }
    webhooks.stop_within(Duration::from_secs(5)).await;
    Ok(())
}
