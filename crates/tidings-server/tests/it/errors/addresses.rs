//! Paths and query parameters that cannot be read.

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::refusal;
use crate::support::{Home, http};

#[tokio::test]
async fn every_wrong_path_and_parameter_is_refused_by_name() {
    let home = Home::new();
    let server = home.start().await;
    let long = format!("/v1/users/{}/events", "u".repeat(256));
    let cases = [
        (Method::GET, long.as_str(), 400, "user"),
        (Method::GET, "/v1/users//events", 400, "user"),
        (Method::GET, "/v1/users/%FF/events", 400, "user"),
        (Method::GET, "/v1/users/%00/events", 400, "user"),
        (
            Method::POST,
            "/v1/users/a/notifications/%FF/read",
            400,
            "id",
        ),
        (
            Method::GET,
            "/v1/users/a/notifications?type=%ff",
            400,
            "type",
        ),
        (
            Method::GET,
            "/v1/users/a/notifications?type=%e2%82",
            400,
            "type",
        ),
        (Method::GET, "/v1/users/a/events?since=%ff", 400, "since"),
        (Method::GET, "/v1/deliveries?state=%ff", 400, "state"),
        (Method::GET, "/console/none", 404, "id"),
        (Method::GET, "/console/none/more", 404, ""),
        (Method::GET, "/v1/deliveries/none/message", 404, "id"),
        (Method::GET, "/v1/users/a/deliveries/none", 404, "id"),
        (Method::GET, "/v1/endpoints/none/deliveries", 404, "id"),
        (
            Method::GET,
            "/v1/users/a/events?event=neither",
            400,
            "event",
        ),
        (
            Method::GET,
            "/v1/users/a/notifications?limit=0",
            400,
            "limit",
        ),
        (
            Method::GET,
            "/v1/users/a/notifications?limit=x",
            400,
            "limit",
        ),
        (
            Method::GET,
            "/v1/users/a/notifications?cursor=x",
            400,
            "cursor",
        ),
        (Method::POST, "/v1/users/a/notifications/x/read", 404, "id"),
        (Method::GET, "/notifications/nobody", 404, "user"),
        (Method::GET, "/notifications/", 400, "user"),
        (Method::GET, "/v1/deliveries?state=lost", 400, "state"),
        (Method::GET, "/v1/deliveries?cursor=lost", 400, "cursor"),
        (Method::GET, "/v1/deliveries/none/attempts", 404, "id"),
        (Method::DELETE, "/v1/endpoints/none", 404, "id"),
        (Method::GET, "/nowhere", 404, ""),
        (Method::GET, "/v1", 404, ""),
        (Method::PUT, "/v1/notifications", 405, ""),
        (Method::DELETE, "/v1/users/a/events", 405, ""),
        (Method::GET, "/v1/users/a/ws", 426, ""),
        (Method::GET, "/ws/a", 426, ""),
    ];
    for (method, path, status, field) in cases {
        let (replied, error) = refusal(&server, method.clone(), path, "").await;
        assert_eq!(replied, status, "{method} {path} {error}");
        assert_eq!(
            error["field"].as_str().unwrap_or_default(),
            field,
            "{path} {error}"
        );
    }
}

#[tokio::test]
async fn what_is_given_twice_is_refused_by_name() {
    let home = Home::new();
    let server = home.start().await;
    for (path, field) in [
        ("/v1/users/a/notifications?limit=1&limit=2", "limit"),
        (
            "/v1/users/a/notifications?unread=true&unread=false",
            "unread",
        ),
        ("/v1/users/a/notifications?type=a&type=b", "type"),
        ("/v1/users/a/events?since=start&since=now", "since"),
        ("/v1/users/a/events?event=type&event=message", "event"),
        ("/v1/deliveries?state=failed&state=pending", "state"),
    ] {
        let (status, error) = refusal(&server, Method::GET, path, "").await;
        assert_eq!(
            (status, &error["field"]),
            (400, &field.into()),
            "{path} {error}"
        );
        assert_eq!(error["message"], "given more than once");
    }
    let request = http()
        .post(server.at("/v1/notifications"))
        .header("Idempotency-Key", "one")
        .header("Idempotency-Key", "two")
        .body(r#"{"user_id":"a","payload":1}"#);
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let error: Value = reply.json().await.unwrap();
    assert_eq!(error["error"]["field"], "Idempotency-Key");
    let request = http()
        .get(server.at("/v1/users/a/events"))
        .header("Last-Event-ID", "00000000000000ff-1")
        .header("Last-Event-ID", "00000000000000ff-2");
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let error: Value = reply.json().await.unwrap();
    assert_eq!(error["error"]["field"], "Last-Event-ID");
    assert_eq!(server.get("/v1/users/a/notifications").await["unread"], 0);
}

#[tokio::test]
async fn a_path_that_is_not_percent_encoded_is_refused_by_name() {
    let home = Home::new();
    let server = home.start().await;
    for (path, field) in [
        ("/v1/users/%zz/notifications", "user"),
        ("/v1/users/%/events", "user"),
        ("/v1/users/a%4/endpoints", "user"),
        ("/v1/users/%ff/notifications", "user"),
        ("/v1/users/a%0Ab/notifications", "user"),
        ("/notifications/%zz", "user"),
    ] {
        // Sent as it stands: a client library would encode it again.
        let mut stream = crate::raw::connect(&server).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 400"), "{path}: {reply}");
        assert!(
            reply.contains(&format!(r#""field":"{field}""#)),
            "{path}: {reply}"
        );
    }
    // Every escape of a valid name is the same name.
    server.notify("a%z/ü", serde_json::json!(1)).await;
    let page = server.get("/v1/users/a%25z%2f%c3%bc/notifications").await;
    assert_eq!(page["unread"], 1);
}

#[tokio::test]
async fn a_since_that_cannot_be_read_is_refused_and_not_guessed() {
    let home = Home::new();
    let server = home.start().await;
    for stream in ["events", "ws"] {
        for since in [
            "",
            "2026-11-21",
            "1700000000",
            "10m",
            "NOW",
            "yesterday",
            "2026-11-21T10:00:60Z",
        ] {
            let path = format!("/v1/users/a/{stream}?since={since}");
            let request = http()
                .get(server.at(&path))
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status(), 400, "{path}");
            let error: Value = reply.json().await.unwrap();
            assert_eq!(error["error"]["field"], "since", "{path}");
        }
    }
    // A plus sign that was not escaped is a plus sign.
    let mut events = server.events("a", "?since=2026-11-21T10:00:00+02:00").await;
    events.until("tidings.caught_up").await;
}
