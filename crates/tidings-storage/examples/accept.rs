//! `cargo run -p tidings-storage --example accept`
//!
//! Accepts a notification under an idempotency key, opens the file again, and is asked for the same: the repeat gets
//! what the first request became, and stores nothing.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::error::Error;

use tidings_notify::{Draft, EventType, Payload, UserId};
use tidings_storage::idempotency::{IdempotencyKey, Once};
use tidings_storage::{Accept, Accepted, DatabaseUrl, Storage};

const BODY: &str = r#"{"text":"Your order was shipped"}"#;

fn request() -> Result<Accept, Box<dyn Error>> {
    let key = IdempotencyKey::new("order-17").ok_or("expected visible ASCII characters")?;
    let draft = Draft::new(
        UserId::new("anna")?,
        EventType::new("order.shipped")?,
        Payload::parse(BODY)?,
    );
    Ok(Accept {
        drafts: vec![draft],
        once: Some(Once::new(key, "/v1/notifications", BODY.as_bytes())),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let url = DatabaseUrl::Sqlite(folder.path().join("tidings.db"));

    let storage = Storage::open(&url, None).await?;
    match storage.records.accept(request()?).await? {
        Accepted::Stored { events, .. } => println!("stored as {}", events[0].id),
        other => return Err(format!("expected a new notification, got {other:?}").into()),
    }
    storage.close().await;

    let storage = Storage::open(&url, None).await?;
    match storage.records.accept(request()?).await? {
        Accepted::Repeated(events) => println!("repeated: it is {}", events[0].id),
        other => return Err(format!("expected a repeat, got {other:?}").into()),
    }
    storage.close().await;
    Ok(())
}
