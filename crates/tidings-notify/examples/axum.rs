//! `cargo run -p tidings-notify --example axum -- 3000`, then open <http://127.0.0.1:3000>. Ctrl-C ends it.
//!
//! It has no access control: anyone who reaches it reads the notifications of every user, and sends some to every
//! user. In your program, `events` and `notify` first check who makes the request, and whether they may do this.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse};
use axum::{Router, body::Body, http::HeaderMap, http::StatusCode, routing::get};
use std::{sync::Arc, time::Duration};
use tidings_notify::wire::{self, EventNaming};
use tidings_notify::{Draft, Error, EventType, MemoryStore, Notifier, Payload, Since, UserId};

/// A browser resumes by itself: it sends the id of the last event that it has.
const PAGE: &str = "<button onclick=\"fetch('/ann', { method: 'POST' })\">Notify</button><script>
    new EventSource('/ann').onmessage = (event) => document.body.append(event.data)</script>";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).ok_or("expected a port")?.parse()?;
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let app = Router::new().route("/", get(async || Html(PAGE)));
    let app = app.route("/{user}", get(events).post(notify));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app.with_state(notifier.clone()))
        .with_graceful_shutdown(stop(notifier.clone()))
        .await?;
    // What the streams have sent since they were closed is stored, too.
    Ok(notifier.close().await?)
}

/// The server waits until every response has ended, and a stream ends when the notifier is closed.
async fn stop(notifier: Notifier) {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("Ctrl-C cannot be waited for: {error}");
    }
    if let Err(error) = notifier.close().await {
        eprintln!("not every mark is stored: {error}");
    }
}

async fn notify(
    State(notifier): State<Notifier>,
    Path(user): Path<UserId>,
) -> Result<String, StatusCode> {
    // Here: may this client send something to this user?
    let payload = Payload::parse(r#"{"text":"Hello"}"#).expect("this is JSON");
    let draft = Draft::new(user, EventType::new("greeting").expect("a name"), payload);
    let event = notifier
        .push(draft)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(event.id.to_string())
}

async fn events(
    State(notifier): State<Notifier>,
    Path(user): Path<UserId>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    // Here: is this client this user?
    let cursor = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let since = wire::since(cursor, None, None, Since::Now).expect("there is no parameter");
    let stream = notifier
        .subscribe(user, since)
        .await
        .map_err(|error| unavailable(&error))?;
    let body = wire::server_sent_events(stream, EventNaming::Message, Duration::from_secs(20));
    Ok((
        [("content-type", "text/event-stream")],
        Body::from_stream(body),
    ))
}

/// A browser does not reconnect after this status: where it should, reply 200 with a [`wire::Bye`].
fn unavailable(error: &Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::SERVICE_UNAVAILABLE
}
