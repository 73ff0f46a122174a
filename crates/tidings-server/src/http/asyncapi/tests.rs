use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tidings_notify::UserId;
use tidings_notify::wire::WebSocketFrame;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;
use crate::http::running::{KEY, Running};
use crate::wire::tests::controls;

fn problems(document: &Value, channel: &str, name: &str, value: &Value) -> Vec<String> {
    let payload = &document["channels"][channel]["messages"][name]["payload"];
    assert!(payload.is_object(), "{channel} has no message {name}");
    let schema = json!({ "allOf": [payload], "components": document["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems = validator.iter_errors(value);
    problems.map(|problem| problem.to_string()).collect()
}

#[test]
fn every_control_document_is_described_by_its_name() {
    let document = make();
    let user = UserId::new("anna").unwrap();
    let mut names = BTreeSet::new();
    for control in controls(&user) {
        names.insert(control.name());
        let (name, json) = (control.name(), serde_json::to_value(&control).unwrap());
        let in_events = format!("{SSE_PREFIX}{name}");
        assert_eq!(problems(&document, "events", &in_events, &json), [""; 0]);
        let frame = serde_json::to_value(WebSocketFrame::from(control)).unwrap();
        assert_eq!(problems(&document, "socket", name, &frame), [""; 0]);
        // A frame of another name is not valid.
        assert!(!problems(&document, "socket", ERROR, &frame).is_empty());
    }
    assert_eq!(names, CONTROLS.map(|(name, ..)| name).into_iter().collect());
    let ping = serde_json::to_value(WebSocketFrame::ping()).unwrap();
    assert_eq!(problems(&document, "socket", PING, &ping), [""; 0]);
    assert!(!problems(&document, "socket", ERROR, &ping).is_empty());
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(document: &Value, value: &Value) -> usize {
        let here = match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                1
            }
            None => 0,
        };
        let inside = match value {
            Value::Object(fields) => fields.values().map(|it| check(document, it)).sum(),
            Value::Array(elements) => elements.iter().map(|it| check(document, it)).sum(),
            _ => 0,
        };
        here + inside
    }
    let document = make();
    assert!(check(&document, &document) > 30);
}

async fn send(running: &Running) {
    let body = json!({ "user_id": "anna", "message": "Hello" });
    let request = running.client.post(running.url("/v1/notifications"));
    let response = request.bearer_auth(KEY).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
}

/// Waits for something that must happen.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let within = Duration::from_secs(60);
    tokio::time::timeout(within, future).await.unwrap()
}

#[tokio::test]
async fn what_an_event_stream_sends_is_described() {
    let running = Running::start().await;
    send(&running).await;
    let request = running
        .client
        .get(running.url("/v1/users/anna/events?since=start"));
    let mut response = request.bearer_auth(KEY).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("tidings.caught_up") || !text.ends_with("\n\n") {
        let chunk = soon(response.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let document = make();
    let mut names = Vec::new();
    for block in text.split_terminator("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let name = field("event: ").unwrap_or(NOTIFICATION);
        let data = serde_json::from_str(field("data: ").unwrap()).unwrap();
        assert_eq!(
            problems(&document, "events", name, &data),
            [""; 0],
            "{block}"
        );
        names.push(name);
    }
    assert_eq!(names, ["tidings.hello", NOTIFICATION, "tidings.caught_up"]);
}

#[tokio::test]
async fn what_a_websocket_sends_is_described() {
    let running = Running::start().await;
    send(&running).await;
    let document = make();
    for (channel, path, expected) in [
        ("messages", "/ws/anna", &["message"][..]),
        (
            "socket",
            "/v1/users/anna/ws?since=start",
            &[HELLO, NOTIFICATION, CAUGHT_UP, ERROR][..],
        ),
    ] {
        let url = running.url(path).replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        let key = format!("Bearer {KEY}").parse().unwrap();
        request.headers_mut().insert("authorization", key);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let wrong = Message::text(r#"{"unknown":1}"#);
        if channel == "socket" {
            socket.send(wrong).await.unwrap();
        }
        let mut names = Vec::new();
        while names.len() < expected.len() {
            let Message::Text(text) = soon(socket.next()).await.unwrap().unwrap() else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            let name = frame["event"].as_str().unwrap_or("message").to_owned();
            assert_eq!(
                problems(&document, channel, &name, &frame),
                [""; 0],
                "{text}"
            );
            names.push(name);
        }
        names.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}
