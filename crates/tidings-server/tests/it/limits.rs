//! Bounds: what happens when there is too much of something.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::Home;
use crate::websocket::Socket;

#[tokio::test]
async fn a_stream_too_many_is_asked_to_back_off_in_a_way_that_browsers_survive() {
    let home = Home::with(&["--max-streams", "2", "--max-streams-per-user", "1"]);
    let server = home.start().await;
    let mut anna = server.events("anna", "").await;
    anna.until("tidings.caught_up").await;
    // A status other than 200 would make an EventSource give up for good.
    let bye = server.events("anna", "").await.next().await;
    assert_eq!(bye.name, "tidings.bye");
    assert_eq!(bye.json()["code"], 4100);
    assert_eq!(bye.retry, bye.json()["reconnect_after_ms"].as_u64());
    assert!(bye.retry.is_some_and(|wait| wait > 0));
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    assert_eq!(u16::from(socket.close_frame().await.code), 4100);

    // The unversioned stream has no word for it but the close.
    let mut socket = Socket::open(&server, "/ws/anna").await;
    assert_eq!(u16::from(socket.close_frame_only().await.code), 4100);

    let mut ben = server.events("ben", "").await;
    ben.until("tidings.caught_up").await;
    assert_eq!(
        server.events("carl", "").await.next().await.name,
        "tidings.bye"
    );

    server.notify("anna", json!("still served")).await;
    assert_eq!(anna.next().await.json()["payload"], "still served");
}

#[tokio::test]
async fn regression_a_closed_stream_frees_its_place_at_once() {
    let home = Home::with(&["--max-streams-per-user", "1"]);
    let server = home.start().await;
    let mut stream = server.events("anna", "").await;
    stream.until("tidings.caught_up").await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        drop(stream);
        let closed = Instant::now();
        stream = crate::support::soon("a free place", async {
            loop {
                let mut next = server.events("anna", "").await;
                if next.next().await.name == "tidings.hello" {
                    return next;
                }
            }
        })
        .await;
        waits.push(closed.elapsed());
    }
    // The next ping after the close, which would notice it too, comes a second later.
    waits.sort();
    assert!(waits[2] < Duration::from_millis(500), "{waits:?}");
}

#[tokio::test]
async fn one_request_reaches_at_most_ten_thousand() {
    let home = Home::new();
    let server = home.start().await;
    let users: Vec<_> = (0..10_001).map(|n| format!("u{n}")).collect();
    let body = json!({ "user_ids": users, "payload": 1 });
    assert_eq!(server.post("/v1/notifications", &body).await.status(), 400);
    let body = json!({ "user_ids": users[..10_000], "payload": 1 });
    assert_eq!(server.post("/v1/notifications", &body).await.status(), 201);
    let count = server
        .get("/v1/users/u9999/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 1);
}

#[tokio::test]
async fn what_one_request_stores_is_bounded_over_all_its_recipients() {
    let home = Home::new();
    let server = home.start().await;
    let users: Vec<_> = (0..100).map(|n| format!("u{n}")).collect();
    let body = json!({ "user_ids": users, "payload": "x".repeat(200_000) });
    let response = server.post("/v1/notifications", &body).await;
    assert_eq!(response.status(), 400);
    let error: serde_json::Value = response.json().await.unwrap();
    assert_eq!(error["error"]["field"], "user_ids");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let home = Home::new();
    let server = home.start().await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest);
    crate::support::soon("the close of a silent connection", end)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_batch_stores_is_bounded_over_all_its_elements() {
    let home = Home::new();
    let server = home.start().await;
    let users: Vec<_> = (0..50).map(|n| format!("u{n}")).collect();
    let element = json!({ "user_ids": users, "payload": "x".repeat(200_000) });
    let body = json!({ "notifications": [element, element] });
    let response = server.post("/v1/notifications/batch", &body).await;
    assert_eq!(response.status(), 400);
    let error: serde_json::Value = response.json().await.unwrap();
    assert_eq!(error["error"]["field"], "notifications[1].user_ids");
}

/// A field that the request does not have helps no one.
#[tokio::test]
async fn regression_a_limit_names_a_field_that_the_request_has() {
    let home = Home::with(&["--max-body-bytes", "20000000"]);
    let server = home.start().await;
    let field = async |path: &str, body: serde_json::Value| {
        let response = server.post(path, &body).await;
        assert_eq!(response.status(), 400);
        let error: serde_json::Value = response.json().await.unwrap();
        error["error"]["field"].as_str().unwrap().to_owned()
    };
    let element = json!({ "user_id": "anna", "message": "m" });
    let many = json!({ "notifications": vec![element; 10_001] });
    let path = "/v1/notifications/batch";
    assert_eq!(field(path, many).await, "notifications[10000].user_id");
    for name in ["payload", "message"] {
        let mut large = json!({ "user_id": "anna" });
        large[name] = "x".repeat(17_000_000).into();
        assert_eq!(field("/v1/notifications", large).await, name);
    }
}
