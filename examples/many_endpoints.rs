//! `cargo run --example many_endpoints`
//!
//! Sends to a healthy endpoint and to one that never replies, over one pool of workers: the healthy
//! one does not notice. Both receivers are in this program.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tidings::signing::Secret;
use tidings::{Dispatcher, Endpoint, Message};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new()
        .route("/healthy", post(|| async { StatusCode::NO_CONTENT }))
        .route("/stalled", post(std::future::pending::<StatusCode>));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let dispatcher = Dispatcher::builder()
        .workers(4)
        .on_error(|endpoint, error| println!("{}: {error}", endpoint.as_str()))
        .build()?;
    dispatcher.start();
    let sent = send(&dispatcher, address).await;

    // Whether everything was sent or not.
    let left = dispatcher.stop_within(Duration::from_secs(3)).await;
    println!("not sent in time: {}", left.len());
    server.abort();
    sent
}

async fn send(
    dispatcher: &Dispatcher,
    address: SocketAddr,
) -> Result<(), Box<dyn std::error::Error>> {
    for name in ["healthy", "stalled"] {
        let endpoint = Endpoint::builder(format!("http://{address}/{name}"))
            .secret(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)
            .timeout(Duration::from_secs(2))
            .build()?;
        dispatcher.insert(name, endpoint);
    }

    for number in 0..3 {
        dispatcher.notify("stalled", Message::from(format!("{number}")))?;
    }
    let start = Instant::now();
    for number in 0..100 {
        let message = Message::from(format!("{number}"));
        dispatcher.deliver("healthy", message).await?;
    }
    println!("healthy: 100 messages in {:?}", start.elapsed());
    Ok(())
}
