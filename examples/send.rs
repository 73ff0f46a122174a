//! `cargo run --example send`
//!
//! Sends one signed message to the receiver of `cargo run --example verify`, or to the URL given as
//! an argument, and shows every attempt.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use tidings::retry::{Exponential, RetryPolicy};
use tidings::signing::Secret;
use tidings::{Client, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let url = url.as_deref().unwrap_or("http://127.0.0.1:8787/hooks");
    let backoff = Exponential::new(Duration::from_millis(100), Duration::from_secs(1))?;

    let client = Client::builder(url)
        .secret(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)
        .retry(RetryPolicy::new(backoff).with_max_attempts(3.try_into()?))
        .timeout(Duration::from_secs(5))
        .build()?;
    client.start();

    let message = Message::from("event occurred");
    println!("sending {} to {url}", message.id());
    let (attempts, outcome) = match client.deliver(message).await {
        Ok(receipt) => (receipt.attempts, "delivered".to_owned()),
        Err(error) => (error.attempts().to_vec(), error.cause().to_string()),
    };
    for attempt in attempts {
        println!("{}", serde_json::to_string(&attempt)?);
    }
    println!("{outcome}");
    client.stop().await;
    Ok(())
}
