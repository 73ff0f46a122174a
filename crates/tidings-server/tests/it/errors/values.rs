//! Values of a wrong type, or out of their range.

use reqwest::Method;
use serde_json::Value;

use super::refusal;
use crate::support::{Home, http};

/// Values of a wrong type, and what the message says. No text of a library reaches a caller.
const WRONG_VALUES: &[(&str, &str, &str, &str)] = &[
    (
        "/v1/notifications",
        r#"{"user_id":5,"payload":1}"#,
        "user_id",
        "expected a string",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"","payload":1}"#,
        "user_id",
        "expected 1 to 255 bytes, got 0",
    ),
    (
        "/v1/notifications",
        r#"{"user_ids":"a","payload":1}"#,
        "user_ids",
        "expected an array of strings",
    ),
    (
        "/v1/notifications",
        r#"{"user_ids":["a",7],"payload":1}"#,
        "user_ids[1]",
        "expected a string",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"type":[]}"#,
        "type",
        "expected a string",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"key":{}}"#,
        "key",
        "expected a string",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","message":1}"#,
        "message",
        "expected a string",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":"soon"}"#,
        "timestamp",
        "expected a time in RFC 3339 such as",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":"9999-12-31T23:59:59Z"}"#,
        "timestamp",
        "from 0001-01-01T00:00:00Z to 9999-12-30T22:00:00Z",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":"9999-12-30T22:00:00.5Z"}"#,
        "timestamp",
        "from 0001-01-01T00:00:00Z to 9999-12-30T22:00:00Z",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":"2026-11-21 10:00:00Z"}"#,
        "timestamp",
        "expected a time in RFC 3339 such as",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":"2026-11-21T10:00:60Z"}"#,
        "timestamp",
        "expected a time in RFC 3339 such as",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"a","payload":1,"timestamp":7}"#,
        "timestamp",
        "expected a time in RFC 3339 such as",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":{}}"#,
        "notifications",
        "expected an array",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[5]}"#,
        "notifications[0]",
        "expected a JSON object",
    ),
    (
        "/v1/notifications",
        "",
        "",
        "the body is empty; expected a JSON object",
    ),
    (
        "/v1/notifications",
        r#"{"user_id":"#,
        "",
        "the body ends before the JSON is complete",
    ),
    (
        "/v1/notifications",
        r#"{"user_id" 5}"#,
        "",
        "not valid JSON in UTF-8, at line 1, column 12",
    ),
    ("/v1/notifications", "[]", "", "expected a JSON object"),
    (
        "/v1/presence/query",
        r#"{"user_ids":{}}"#,
        "user_ids",
        "expected an array of strings",
    ),
    (
        "/v1/users/a/notifications/seen",
        r#"{"up_to":1}"#,
        "up_to",
        "expected a string",
    ),
    ("/v1/endpoints", r#"{"url":1}"#, "url", "expected a string"),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","enabled":1}"#,
        "enabled",
        "expected true or false",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","event_types":"a"}"#,
        "event_types",
        "expected an array of strings",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","event_types":["or*der"]}"#,
        "event_types[0]",
        "expected an event type",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","event_types":["a","b","a"]}"#,
        "event_types[2]",
        "expected each type once, got `a` twice",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","event_types":["tidings."]}"#,
        "event_types[0]",
        "expected `tidings.*` for all events about endpoints, got `tidings.`",
    ),
    (
        "/v1/users/a/endpoints",
        r#"{"url":"http://h/","event_types":["order","tidings.endpoint.*"]}"#,
        "event_types[1]",
        "go to endpoints of the operator only, got `tidings.endpoint.*`",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"X-Team":"a","x-team":"b"}}"#,
        "headers.x-team",
        "expected each header once, in upper or lower case",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"x-team":"a","webhook-id":"b"}}"#,
        "headers.webhook-id",
        "expected a name that neither the transport nor a signer uses",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"a b":"x"}}"#,
        "headers.a b",
        "expected a header name",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","secret":"abc"}"#,
        "secret",
        "a secret is `whsec_` and 24 to 64 bytes in base64",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","format":"xml"}"#,
        "format",
        r#"expected "envelope" or "raw""#,
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":["x"]}"#,
        "headers",
        "expected an object whose values are strings",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","signatures":["standard","none"]}"#,
        "signatures[1]",
        r#"expected "standard" or "timestamped""#,
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","signatures":"standard"}"#,
        "signatures",
        r#"expected an array of "standard", "timestamped", or both"#,
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"x-a":"1","x-b":2}}"#,
        "headers.x-b",
        "expected a string",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"x-a":"1","x-a":"2"}}"#,
        "headers.x-a",
        "given more than once",
    ),
    (
        "/v1/presence/query",
        r#"{"user_ids":["a","b",""]}"#,
        "user_ids[2]",
        "expected 1 to 255 bytes, got 0",
    ),
    (
        "/v1/notifications/batch",
        r#"{"notifications":[{"user_ids":["a",null],"payload":1}]}"#,
        "notifications[0].user_ids[1]",
        "expected a string",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","signatures":["standard","standard"]}"#,
        "signatures[1]",
        "expected each scheme once",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","rate_limit":0}"#,
        "rate_limit",
        "expected a whole number from 1 to 1000000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","rate_limit":1000001}"#,
        "rate_limit",
        "expected a whole number from 1 to 1000000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":[0,99999999999999999999]}"#,
        "schedule[1]",
        "expected a whole number of seconds from 0 to 2592000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":[0,2592001]}"#,
        "schedule[1]",
        "expected a whole number of seconds from 0 to 2592000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","timeout_ms":-1}"#,
        "timeout_ms",
        "expected a whole number of milliseconds from 1 to 3600000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","timeout_ms":3600001}"#,
        "timeout_ms",
        "expected a whole number of milliseconds from 1 to 3600000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":[1.5]}"#,
        "schedule[0]",
        "expected a whole number of seconds from 0 to 2592000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":5}"#,
        "schedule",
        "expected an array of whole numbers of seconds from 0 to 2592000",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","secret":7}"#,
        "secret",
        "expected a string",
    ),
];

#[tokio::test]
async fn every_wrong_value_is_refused_in_words_of_ours() {
    let home = Home::new();
    let server = home.start().await;
    for (path, body, field, says) in WRONG_VALUES {
        let (status, error) = refusal(&server, Method::POST, path, body).await;
        assert_eq!(status, 400, "{path} {body} {error}");
        assert_eq!(
            error["field"].as_str().unwrap_or_default(),
            *field,
            "{body} {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{path} {body} {error}");
    }
}

#[tokio::test]
async fn limits_of_webhooks_end_where_the_document_says() {
    let home = Home::new();
    let server = home.start().await;
    let with_waits = |waits: usize| {
        serde_json::json!({ "url": "http://h/", "schedule": vec![1; waits] }).to_string()
    };
    let (status, error) = refusal(&server, Method::POST, "/v1/endpoints", &with_waits(101)).await;
    assert_eq!(
        (status, &error["field"]),
        (400, &"schedule".into()),
        "{error}"
    );
    let request = http()
        .post(server.at("/v1/endpoints"))
        .body(with_waits(100));
    let endpoint: Value = request.send().await.unwrap().json().await.unwrap();
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let (status, error) = refusal(&server, Method::PATCH, &path, &with_waits(101)).await;
    assert_eq!(
        (status, &error["field"]),
        (400, &"schedule".into()),
        "{error}"
    );

    let rotate = format!("{path}/secret/rotate");
    let month = 30 * 24 * 3600 * 1000_u64;
    let body = |overlap: u64| format!(r#"{{"overlap_ms":{overlap}}}"#);
    for overlap in [month + 1, u64::MAX] {
        let (status, error) = refusal(&server, Method::POST, &rotate, &body(overlap)).await;
        assert_eq!(
            (status, &error["field"]),
            (400, &"overlap_ms".into()),
            "{error}"
        );
    }
    for overlap in [0, month] {
        let request = http().post(server.at(&rotate)).body(body(overlap));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}
