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
use tidings_webhooks::{Delivery, DeliveryQuery, Webhooks};
use tidings_webhooks::{EndpointSettings, NewEndpoint, Options, Owner, StoreError, WebhookEvent};

const ORDERS: &[&str] = &["CREATE TABLE orders (number INTEGER PRIMARY KEY, what TEXT NOT NULL)"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("expected a URL to post to")?;
    // Thrown away in the end. A file that stays sends in its next run what it has not sent in this one.
    let folder = tempfile::tempdir()?;
    let database = Database::open(
        folder.path().join("shop.db"),
        &tidings_sqlite::Options::default(),
    )?;
    database.migrate("shop", ORDERS).await?;

    let engine = SqliteEngine::open(database.clone()).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let store = Arc::new(SqliteStore::open(database.clone()).await?);
    let webhooks = Webhooks::start(store, streams.clone(), Options::default()).await?;

    // Whatever becomes of the order, all of this is stopped, in the order in which it uses each other.
    let ordered = order(&database, &webhooks, url).await;
    let report = webhooks.stop_within(Duration::from_secs(5)).await;
    println!(
        "stopped: {} attempts broken off, {} outcomes not written",
        report.abandoned_attempts, report.unwritten_outcomes
    );
    streams.close().await;
    database.close().await;
    ordered
}

async fn order(
    database: &Database,
    webhooks: &Webhooks,
    url: String,
) -> Result<(), Box<dyn Error>> {
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

    let delivery = tokio::time::timeout(Duration::from_secs(20), attempted(webhooks)).await??;
    let (event, state, attempts) = (delivery.event_id, delivery.state, delivery.attempts);
    println!("{event}: {} after {attempts} attempt", state.as_str());
    Ok(())
}

/// Waits for the first attempt. An application does not: its deliveries go on in the background.
async fn attempted(webhooks: &Webhooks) -> Result<Delivery, tidings_webhooks::Error> {
    loop {
        let newest = webhooks.deliveries(&DeliveryQuery::newest(1)).await?;
        if let Some(delivery) = newest.into_iter().find(|it| it.attempts > 0) {
            return Ok(delivery);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
