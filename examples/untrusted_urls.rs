//! `cargo run --example untrusted_urls`
//!
//! Refuses URLs that lead into the sender's own network, when they are registered and again when a
//! connection is made, and shows how to allow a range.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use tidings::{AddressPolicy, Endpoint, Message, Sender};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = AddressPolicy::PublicOnly
        .allow("10.20.0.0/16")?
        .allow_ports([80, 443, 8443]);

    println!("when a URL is registered:");
    for text in [
        "https://93.184.216.34/hooks",
        "https://10.20.3.4/hooks",
        "http://169.254.169.254/latest/meta-data/",
        "http://0x7f.1/",
        "http://[::ffff:10.0.0.1]/",
        "https://example.com:6379/",
    ] {
        let endpoint = Endpoint::new(text)?;
        match policy.check_url(endpoint.url()) {
            Ok(()) => println!("  allowed  {text}"),
            Err(blocked) => println!("  refused  {text}: {blocked}"),
        }
    }

    // A name can lead inside, whatever it led to before: it is checked at each connection.
    println!("when a connection is made:");
    let sender = Sender::builder().address_policy(policy).build()?;
    let endpoint = Endpoint::new("http://localhost:8443/")?;
    let attempt = sender.attempt(&endpoint, &Message::from("hello"), 1).await;
    match attempt.result {
        Ok(response) => println!("  {}", response.status),
        Err(error) => println!("  {error}: {}", error.cause()),
    }
    Ok(())
}
