//! `cargo run --example router`
//!
//! Routes a notification to another instance by one signed POST, and verifies it there. Both
//! instances are in this program.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tidings::Client;
use tidings::signing::{Secret, Verifier};
use tidings_notify::{
    Draft, Epoch, Event, EventId, EventType, Payload, Router, RoutingInfo, UserId,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = Secret::generate();

    let app = axum::Router::new()
        .route("/events", post(receive))
        .with_state(Verifier::new(secret.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let client = Client::builder(format!("http://{address}/events"))
        .secret(secret)
        .build()?;
    client.start();
    let routed = route(Arc::new(client.clone())).await;
    // Whether it was routed or not.
    client.stop().await;
    server.abort();
    routed
}

async fn route(router: Arc<dyn Router>) -> Result<(), Box<dyn std::error::Error>> {
    let draft = Draft::new(
        UserId::new("alice")?,
        EventType::new("comment.created")?,
        Payload::parse(r#"{"text":"hello"}"#)?,
    );
    let event = Event::from_draft(draft, EventId::new(Epoch::random(), 1));
    router.route(&RoutingInfo::default(), &event).await?;
    println!("routed   {}", event.id);
    Ok(())
}

async fn receive(State(verifier): State<Verifier>, headers: HeaderMap, body: Bytes) -> StatusCode {
    match verifier.verify_now(&headers, &body) {
        Ok(genuine) => {
            println!("received {} {}", genuine.id, String::from_utf8_lossy(&body));
            StatusCode::NO_CONTENT
        }
        Err(error) => {
            println!("refused  {error}");
            StatusCode::UNAUTHORIZED
        }
    }
}
