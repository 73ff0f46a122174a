//! `cargo run -p tidings-notify --example axum`, then open <http://127.0.0.1:3000>.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse};
use axum::{Router, body::Body, http::HeaderMap, routing::get};
use std::{sync::Arc, time::Duration};
use tidings_notify::wire::{self, EventNaming};
use tidings_notify::{Draft, EventType, MemoryStore, Notifier, Payload, Since, UserId};

/// A browser resumes by itself: it sends the id of the last event that it has.
const PAGE: &str = "<button onclick=\"fetch('/ann', { method: 'POST' })\">Notify</button><script>
    new EventSource('/ann').onmessage = (event) => document.body.append(event.data)</script>";

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let notifier = Notifier::builder(Arc::new(MemoryStore::new())).build();
    let app = Router::new().route("/", get(async || Html(PAGE)));
    let app = app.route("/{user}", get(events).post(notify));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.with_state(notifier)).await
}

async fn notify(State(notifier): State<Notifier>, Path(user): Path<UserId>) -> String {
    let payload = Payload::parse(r#"{"text":"Hello"}"#).expect("this is JSON");
    let draft = Draft::new(user, EventType::new("greeting").expect("a name"), payload);
    format!("{:?}", notifier.push(draft).await)
}

type Request = (State<Notifier>, Path<UserId>, HeaderMap);

async fn events((State(notifier), Path(user), headers): Request) -> impl IntoResponse {
    let cursor = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let since = wire::since(cursor, None, None, Since::Now).expect("there is no parameter");
    let stream = notifier.subscribe(user, since).await.expect("it is open");
    let body = wire::server_sent_events(stream, EventNaming::Message, Duration::from_secs(20));
    let content_type = [("content-type", "text/event-stream")];
    (content_type, Body::from_stream(body))
}
