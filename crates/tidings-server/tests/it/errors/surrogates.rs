//! Text with half of a surrogate pair.

use reqwest::Method;

use super::refusal;
use crate::support::{Home, http};

/// Half of a surrogate pair is no text. Each of these is valid JSON by its grammar.
const HALF_PAIRS: &[(&str, &str, &str)] = &[
    (
        "/v1/notifications",
        r#"{"user_id":"\ud800","payload":1}"#,
        "user_id",
    ),
    (
        "/v1/notifications",
        r#"{"user_ids":["a","\udc00"],"payload":1}"#,
        "user_ids[1]",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","message":"\ud800"}"#,
        "message",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":"\ud800"}"#,
        "payload",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","type":"\ud83dx","payload":1}"#,
        "type",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","key":"\ud83d\u0041","payload":1}"#,
        "key",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","timestamp":"\ud800","payload":1}"#,
        "timestamp",
    ),
    ("/v1/notifications", r#"{"\ud800":"a","payload":1}"#, ""),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[{"user_id":"a","message":"\ud800"}]}"#,
        "notifications[0].message",
    ),
    ("/v1/endpoints", r#"{"url":"http://h/\ud800"}"#, "url"),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","description":"\ud800"}"#,
        "description",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"x-a":"\ud800"}}"#,
        "headers.x-a",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"\ud800":"a"}}"#,
        "headers",
    ),
    (
        "/v1/users/a/notifications/seen",
        r#"{"up_to":"\ud800"}"#,
        "up_to",
    ),
    (
        "/notifications",
        r#"{"user_id":"a","message":"\ud800"}"#,
        "message",
    ),
];

#[tokio::test]
async fn half_of_a_surrogate_pair_is_refused_in_every_field() {
    let home = Home::new();
    let server = home.start().await;
    for (path, body, field) in HALF_PAIRS {
        let (status, error) = refusal(&server, Method::POST, path, body).await;
        assert_eq!(status, 400, "{path} {body} {error}");
        assert_eq!(
            error["field"].as_str().unwrap_or_default(),
            *field,
            "{body} {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("expected surrogates in pairs"),
            "{body} {error}"
        );
    }
    let whole = r#"{"user_id":"\ud83d\ude00","message":"\ud83d\ude00"}"#;
    let request = http().post(server.at("/v1/notifications")).body(whole);
    assert_eq!(request.send().await.unwrap().status(), 201);
}
