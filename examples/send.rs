//! `cargo run --example send`
//!
//! Sends one signed message to the receiver of `cargo run --example verify`, or to the URL given as
//! an argument, and shows every attempt. Fails if the message was not delivered.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tidings::retry::{Exponential, RetryPolicy};
use tidings::signing::Secret;
use tidings::{Client, Message};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = match &arguments[..] {
        [] => "http://127.0.0.1:8787/hooks",
        [url] => url,
        _ => {
            eprintln!("expected one argument at most, the URL of a receiver");
            return ExitCode::FAILURE;
        }
    };
    match send(url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn send(url: &str) -> Result<(), Box<dyn Error>> {
    let backoff = Exponential::new(Duration::from_millis(100), Duration::from_secs(1))?;
    let client = Client::builder(url)
        .secret(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)
        .retry(RetryPolicy::new(backoff).with_max_attempts(3))
        .timeout(Duration::from_secs(5))
        .build()?;
    client.start();

    let message = Message::from("event occurred");
    println!("sending {} to {url}", message.id());
    let outcome = client.deliver(message).await;
    client.stop().await;
    let attempts = match &outcome {
        Ok(delivered) => &delivered.attempts[..],
        Err(error) => error.attempts(),
    };
    for attempt in attempts {
        println!("{}", serde_json::to_string(attempt)?);
    }
    outcome?;
    println!("delivered");
    Ok(())
}
