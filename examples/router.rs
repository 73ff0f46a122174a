//! `cargo run --example router`
//!
//! Two instances of a program share a store. Alice's stream is open on one of them, and something happens
//! on the other, which hands it over by one signed POST. Both instances are in this program.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tidings::router::{InstanceReceiver, InstanceRouter, URL_METADATA};
use tidings::signing::{Secret, StandardSigner, Verifier};
use tidings_notify::presence::{Tracker, TrackerOptions};
use tidings_notify::{
    Draft, EventType, Item, MemoryPresence, MemoryStore, Notifier, Payload, RoutingInfo, Since,
    UserId,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let secret = Secret::generate();
    // Instances on several machines share a database and a presence store instead.
    let store = Arc::new(MemoryStore::new());
    let presence = Arc::new(MemoryPresence::default());

    // The instance `web-1`, where events of other instances arrive.
    let web_1 = Notifier::builder(store.clone())
        // Otherwise it would find the event in the store by itself before long.
        .poll_interval(Duration::from_secs(3600))
        .build()?;
    let receiver = InstanceReceiver::new(Verifier::new(secret.clone()), web_1.clone());
    let app = axum::Router::new()
        .route("/events", post(receive))
        .with_state(receiver);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/events", listener.local_addr()?);
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    // It says where it is, and that Alice is connected there.
    let here = RoutingInfo {
        instance_id: "web-1".to_owned(),
        metadata: [(URL_METADATA.to_owned(), url)].into(),
    };
    let tracker = Tracker::join(presence.clone(), here, TrackerOptions::default())?;
    let alice = UserId::new("alice")?;
    let mut stream = web_1.subscribe(alice.clone(), Since::Now).await?;
    let connection = tracker.register(alice.clone())?;
    connection.stored().await?;

    // The instance `web-2`, where something happens.
    let signer = StandardSigner::new([secret]).expect("there is a secret");
    let router = InstanceRouter::builder(signer).build()?;
    router.start();
    let web_2 = Notifier::builder(store)
        .instance_id("web-2")
        .presence(presence)
        .router(Arc::new(router.clone()))
        .build()?;
    let text = Payload::parse(r#"{"text":"hello"}"#)?;
    let draft = Draft::new(alice, EventType::new("comment.created")?, text);
    let event = web_2.push(draft).await?;
    println!("pushed   {} on web-2", event.id);

    let arrived = loop {
        if let Item::Event(event) = stream.next().await? {
            break event;
        }
    };
    println!(
        "streamed {} on web-1: {}",
        arrived.id,
        arrived.payload.as_str()
    );

    drop(connection);
    tracker.close().await?;
    web_2.close().await?;
    router.stop().await;
    drop(stream);
    web_1.close().await?;
    server.abort();
    Ok(())
}

async fn receive(
    State(receiver): State<InstanceReceiver>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    match receiver.receive(&headers, &body, jiff::Timestamp::now()) {
        Ok(event) => {
            println!("received {} on web-1", event.id);
            StatusCode::NO_CONTENT
        }
        Err(error) => error.status(),
    }
}
