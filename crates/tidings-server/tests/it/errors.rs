//! Wrong input: a JSON error that names the field, and never a 500.

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Home, Server, http};

/// Makes a request that must be refused; returns its status and the error.
pub(crate) async fn refusal(
    server: &Server,
    method: Method,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let request = http()
        .request(method.clone(), server.at(path))
        .body(body.to_owned());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let Ok(json) = serde_json::from_str::<Value>(&text) else {
        panic!("{method} {path} {body}: {status} without JSON: {text}");
    };
    assert!(json["error"]["code"].is_string(), "{text}");
    assert!(json["error"]["message"].is_string(), "{text}");
    (status, json["error"].clone())
}

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
        "at the latest 9999-12-30T22:00:00Z",
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
        "event_types",
        "expected each type once, got `a` twice",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","event_types":["tidings."]}"#,
        "event_types",
        "expected `tidings.*` for all events about endpoints, got `tidings.`",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"X-Team":"a","x-team":"b"}}"#,
        "headers",
        "expected each header once, got `x-team` twice",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"x-team":"a","webhook-id":"b"}}"#,
        "headers",
        "got `webhook-id`",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","headers":{"a b":"x"}}"#,
        "headers",
        "expected a header name, got `a b`",
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
        r#"{"url":"http://h/","rate_limit":0}"#,
        "rate_limit",
        "expected a whole number from 1 to 4294967295",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","timeout_ms":-1}"#,
        "timeout_ms",
        "expected a whole number, 0 or more",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":[1.5]}"#,
        "schedule[0]",
        "expected a whole number, 0 or more",
    ),
    (
        "/v1/endpoints",
        r#"{"url":"http://h/","schedule":5}"#,
        "schedule",
        "expected an array of whole numbers, 0 or more",
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

#[tokio::test]
async fn a_request_that_names_two_hosts_is_refused() {
    let home = Home::new();
    let server = home.start().await;
    for path in ["/v1/users/a/notifications", "/health/live", "/"] {
        for (hosts, status) in [
            ("Host: localhost\r\n", "200"),
            ("Host: localhost\r\nHost: localhost\r\n", "400"),
            ("Host: localhost\r\nhost: example.com\r\n", "400"),
        ] {
            let mut stream = crate::raw::connect(&server).await;
            let head = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert!(
                status == "200" || reply.contains(r#""field":"Host""#),
                "{reply}"
            );
        }
    }
}

async fn assert_refused(server: &Server, path: &str, body: &str, field: &str) {
    let (status, error) = refusal(server, Method::POST, path, body).await;
    assert_eq!(status, 400, "{path} {body} {error}");
    let named = error["field"].as_str().unwrap_or_default();
    assert_eq!(named, field, "{path} {body} {error}");
}

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
        (Method::GET, "/console/none", 404, ""),
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
async fn a_body_that_is_too_large_is_refused_and_the_server_goes_on() {
    let home = Home::with(&["--max-body-bytes", "2000"]);
    let server = home.start().await;
    let body = format!(r#"{{"user_id":"a","message":"{}"}}"#, "x".repeat(3000));
    let (status, error) = refusal(&server, Method::POST, "/v1/notifications", &body).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (413, Some("body_too_large"))
    );
    server.notify("a", Value::Null).await;
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
async fn a_request_that_is_no_websocket_gets_to_know_what_it_lacks() {
    let home = Home::new();
    let server = home.start().await;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (headers, says) in [
        (
            &[][..],
            "expected a WebSocket: `Connection: Upgrade` and `Upgrade: websocket`",
        ),
        (
            &upgrade[..1],
            "expected a WebSocket: `Connection: Upgrade` and `Upgrade: websocket`",
        ),
        (&upgrade[..], "expected the header Sec-WebSocket-Key"),
        (
            &[upgrade[0], upgrade[1], key][..],
            "expected `Sec-WebSocket-Version: 13`",
        ),
    ] {
        for path in ["/v1/users/a/ws", "/ws/a"] {
            let mut request = http().get(server.at(path));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status(), 426, "{path}");
            let error: Value = reply.json().await.unwrap();
            assert_eq!(error["error"]["message"], says, "{path}");
        }
    }
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
