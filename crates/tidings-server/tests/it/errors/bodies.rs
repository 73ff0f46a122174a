//! Bodies that are not what a route expects.

use reqwest::Method;
use serde_json::Value;

use super::{assert_refused, refusal};
use crate::support::{Home, http};

/// Bodies that cannot be accepted, and the field that is wrong with them.
const WRONG_NOTIFICATIONS: &[(&str, &str)] = &[
    ("", ""),
    ("{", ""),
    ("null", ""),
    ("[]", ""),
    ("\0", ""),
    ("{}", "user_id"),
    (r#"{"user_id":"a"}"#, "payload"),
    (r#"{"user_id":5,"payload":1}"#, "user_id"),
    (r#"{"user_id":"","payload":1}"#, "user_id"),
    (r#"{"user_id":"a\nb","payload":1}"#, "user_id"),
    (r#"{"user_id":{},"payload":1}"#, "user_id"),
    (r#"{"user_ids":[],"payload":1}"#, "user_ids"),
    (r#"{"user_ids":"a","payload":1}"#, "user_ids"),
    (r#"{"user_ids":["a",""],"payload":1}"#, "user_ids[1]"),
    (
        r#"{"user_id":"a","user_ids":["a"],"payload":1}"#,
        "user_ids",
    ),
    (r#"{"user_id":"a","payload":1,"message":"m"}"#, "message"),
    (r#"{"user_id":"a","message":1}"#, "message"),
    (r#"{"user_id":"a","payload":1,"type":""}"#, "type"),
    (r#"{"user_id":"a","payload":1,"type":7}"#, "type"),
    (
        r#"{"user_id":"a","payload":1,"timestamp":"soon"}"#,
        "timestamp",
    ),
    (r#"{"user_id":"a","paylod":1}"#, "paylod"),
    (r#"{"user":"a","payload":1}"#, "user"),
    (r#"{"user_id":"a","payload":1,"extra":1}"#, "extra"),
    (r#"{"user_id":"a","user_id":"b","payload":1}"#, "user_id"),
];

const WRONG_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("/v1/notifications/batch", "{}", "notifications"),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[]}"#,
        "notifications",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[{"user_id":"a","payload":1},{"user_id":7,"payload":1}]}"#,
        "notifications[1].user_id",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[5]}"#,
        "notifications[0]",
    ),
    ("/notifications", "{}", "user_id"),
    ("/notifications", r#"{"user_id":"a"}"#, "message"),
    ("/v1/endpoints", "{}", "url"),
    ("/v1/endpoints", r#"{"url":"not a url"}"#, "url"),
    ("/v1/endpoints", r#"{"url":"ftp://example.com"}"#, "url"),
    (
        "/v1/endpoints",
        r#"{"url":"http://127.0.0.1:1","secret":"whsec_short"}"#,
        "secret",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://127.0.0.1:1","event_types":[1]}"#,
        "event_types[0]",
    ),
    ("/v1/users/a/endpoints", r#"{"url":""}"#, "url"),
    // A misspelt field is named, and not another one as missing.
    ("/v1/endpoints", r#"{"ulr":"http://h/"}"#, "ulr"),
    (
        "/v1/notifications/batch",
        r#"{"notification":[{"user_id":"a","payload":1}]}"#,
        "notification",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[{"user_id":"a","paylod":1}]}"#,
        "notifications[0].paylod",
    ),
];

#[tokio::test]
async fn every_wrong_body_is_refused_with_the_name_of_its_field() {
    let home = Home::new();
    let server = home.start().await;
    for (body, field) in WRONG_NOTIFICATIONS {
        assert_refused(&server, "/v1/notifications", body, field).await;
    }
    for (path, body, field) in WRONG_ELSEWHERE {
        assert_refused(&server, path, body, field).await;
    }
    let long = format!(r#"{{"user_id":"{}","payload":1}}"#, "u".repeat(256));
    assert_refused(&server, "/v1/notifications", &long, "user_id").await;
    let (open, close) = ("[".repeat(500), "]".repeat(500));
    let deep = format!(r#"{{"user_id":"a","payload":{open}{close}}}"#);
    assert_refused(&server, "/v1/notifications", &deep, "payload").await;
}

#[tokio::test]
async fn bodies_that_are_not_plain_json_text_are_refused_by_what_they_are() {
    let home = Home::new();
    let server = home.start().await;
    let marked = "\u{feff}{\"user_id\":\"a\",\"payload\":1}";
    let (status, error) = refusal(&server, Method::POST, "/v1/notifications", marked).await;
    assert_eq!(status, 400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("byte order mark"),
        "{error}"
    );
    for (encoding, status) in [
        ("gzip", 415),
        ("br", 415),
        ("identity", 201),
        ("Identity", 201),
    ] {
        let request = http()
            .post(server.at("/v1/notifications"))
            .header("Content-Encoding", encoding)
            .body(r#"{"user_id":"a","payload":1}"#);
        assert_eq!(request.send().await.unwrap().status(), status, "{encoding}");
    }
}

#[tokio::test]
async fn a_body_with_fields_is_refused_where_none_has_an_effect() {
    let home = Home::new();
    let server = home.start().await;
    let event = server.notify("a", Value::Null).await;
    let one = format!(
        "/v1/users/a/notifications/{}",
        event["id"].as_str().unwrap()
    );
    for action in ["read", "unread", "archive", "unarchive"] {
        let path = format!("{one}/{action}");
        assert_refused(&server, &path, r#"{"up_to":"x"}"#, "up_to").await;
        assert_refused(&server, &path, "x", "").await;
        for body in ["", "{}", "null"] {
            let request = http().post(server.at(&path)).body(body);
            assert_eq!(request.send().await.unwrap().status(), 200, "{path} {body}");
        }
    }
    for path in ["/v1/endpoints/ep_0/test", "/v1/deliveries/dlv_0/retry"] {
        assert_refused(&server, path, r#"{"type":"x"}"#, "type").await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_server_goes_on() {
    let home = Home::with(&["--max-body-bytes", "2000"]);
    let server = home.start().await;
    let body = format!(r#"{{"user_id":"a","message":"{}"}}"#, "x".repeat(3000));
    let (status, error) = refusal(&server, Method::POST, "/v1/notifications", &body).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (413, Some("body_too_large"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.ends_with("expected at most 2000 bytes (--max-body-bytes)"),
        "{message}"
    );
    server.notify("a", Value::Null).await;
}
