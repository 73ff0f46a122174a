//! Webhook endpoints: made, shown, changed, removed.

use http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use tidings::signing::{Secret, Verifier};

use crate::errors;
use crate::support::{Home, Server, http};
use crate::webhooks::Webhooks;

async fn create(server: &Server, path: &str, body: Value) -> Value {
    let response = server.post(path, &body).await;
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

/// Makes a request that must be refused; returns its status and the field that is wrong.
async fn refusal(server: &Server, method: Method, path: &str, body: &Value) -> (u16, String) {
    let (status, error) = errors::refusal(server, method, path, &body.to_string()).await;
    (
        status,
        error["field"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_with_the_setting_that_would_allow_it() {
    let home = Home::with(&["--webhook-private-addresses=false"]);
    let server = home.start().await;
    for url in ["http://10.0.0.1/hook", "http://localhost:3000/hook"] {
        let body = json!({ "url": url }).to_string();
        let (status, error) = errors::refusal(&server, Method::POST, "/v1/endpoints", &body).await;
        assert_eq!((status, &error["field"]), (400, &json!("url")), "{url}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("is not allowed"), "{message}");
        assert!(message.contains("--webhook-private-addresses"), "{message}");
    }
}

#[tokio::test]
async fn every_setting_is_shown_changed_and_reset() {
    let home = Home::new();
    let server = home.start().await;
    let settings = json!({
        "url": "HTTP://127.0.0.1:9000/a/../hook",
        "description": "orders",
        "event_types": ["order.*", "refund"],
        "format": "raw",
        "headers": { "x-team": "billing" },
        "signatures": ["standard", "timestamped"],
        "rate_limit": 5,
        "timeout_ms": 1500,
        "schedule": [0, 10],
    });
    let created = create(&server, "/v1/users/anna/endpoints", settings.clone()).await;
    let path = format!(
        "/v1/users/anna/endpoints/{}",
        created["id"].as_str().unwrap()
    );
    let shown = server.get(&path).await;
    for (name, value) in settings.as_object().unwrap() {
        if name != "url" {
            assert_eq!(shown[name], *value, "{name}");
        }
    }
    // The URL is shown as it is called.
    assert_eq!(shown["url"], "http://127.0.0.1:9000/hook");
    assert_eq!(shown["user_id"], "anna");
    assert_eq!(shown["health"]["pending"], 0);
    assert!(shown.get("secret").is_none());

    let changed = server.patch(&path, &json!({ "rate_limit": 7 })).await;
    assert_eq!(changed["rate_limit"], 7);
    assert_eq!(changed["description"], "orders");
    let reset = json!({ "description": null, "event_types": null, "format": null, "headers": null,
        "signatures": null, "rate_limit": null, "timeout_ms": null, "schedule": null });
    let changed = server.patch(&path, &reset).await;
    let fresh = json!({ "url": "http://127.0.0.1:9000/hook" });
    let fresh = create(&server, "/v1/endpoints", fresh).await;
    for name in reset.as_object().unwrap().keys() {
        assert_eq!(changed[name], fresh[name], "{name}");
    }
    let disabled = server.patch(&path, &json!({ "enabled": false })).await;
    assert_eq!(disabled["enabled"], false);
    assert!(disabled["disabled_because"].is_string());
    let enabled = server.patch(&path, &json!({ "enabled": null })).await;
    assert_eq!(enabled["enabled"], true);
    let null = r#"{"url":null}"#;
    let (status, error) = errors::refusal(&server, Method::PATCH, &path, null).await;
    assert_eq!((status, &error["field"]), (400, &json!("url")));
}

#[tokio::test]
async fn an_endpoint_can_be_made_disabled_and_enabled_later() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let off = json!({ "url": receiver.url(), "enabled": false });
    let created = create(&server, "/v1/users/anna/endpoints", off).await;
    assert_eq!(created["enabled"], false);
    assert_eq!(
        created["disabled_because"],
        "disabled by a request to the API"
    );
    for on in [json!(true), Value::Null] {
        let on = json!({ "url": "http://127.0.0.1:9/", "enabled": on });
        let created = create(&server, "/v1/users/ben/endpoints", on).await;
        assert_eq!(created["enabled"], true);
    }
    let path = format!(
        "/v1/users/anna/endpoints/{}",
        created["id"].as_str().unwrap()
    );
    let test = format!("{path}/test");
    assert_eq!(server.post(&test, &Value::Null).await.status(), 409);
    let mut other = Webhooks::start().await;
    let url = json!({ "url": other.url() });
    create(&server, "/v1/users/anna/endpoints", url).await;
    server.notify("anna", json!("before")).await;
    assert_eq!(other.next().await.json()["data"], "before");

    let enabled = server.patch(&path, &json!({ "enabled": true })).await;
    assert_eq!(enabled["enabled"], true);
    assert!(enabled.get("disabled_because").is_none());
    server.notify("anna", json!("after")).await;
    assert_eq!(receiver.next().await.json()["data"], "after");
}

#[tokio::test]
async fn a_wrong_setting_is_refused_by_name() {
    let home = Home::new();
    let server = home.start().await;
    let good = json!({ "url": "http://127.0.0.1:9000/" });
    let created = create(&server, "/v1/endpoints", good.clone()).await;
    let path = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());
    for (name, value) in [
        ("url", json!("ftp://example.com")),
        ("url", json!("")),
        ("event_types[0]", json!([" order"])),
        ("event_types[1]", json!(["order", "order"])),
        ("format", json!("xml")),
        ("headers.webhook-id", json!({ "webhook-id": "mine" })),
        ("signatures", json!([])),
        ("rate_limit", json!(0)),
        ("timeout_ms", json!("fast")),
        ("schedule", json!([])),
        ("paylod", json!(1)),
    ] {
        let field = name.split(['[', '.']).next().unwrap();
        let mut body = good.clone();
        body[field] = value.clone();
        let refused = refusal(&server, Method::POST, "/v1/endpoints", &body).await;
        assert_eq!(refused, (400, name.to_owned()), "{value}");
        let body = json!({ field: value });
        let refused = refusal(&server, Method::PATCH, &path, &body).await;
        assert_eq!(refused, (400, name.to_owned()), "{value}");
    }
    assert_eq!(server.get(&path).await["url"], "http://127.0.0.1:9000/");
}

#[tokio::test]
async fn an_endpoint_of_a_user_may_wait_for_a_minute_and_one_of_the_operator_for_an_hour() {
    let home = Home::new();
    let server = home.start().await;
    let with = |timeout: u64| json!({ "url": "http://127.0.0.1:9000/", "timeout_ms": timeout });
    let created = create(&server, "/v1/users/anna/endpoints", with(60_000)).await;
    let path = format!(
        "/v1/users/anna/endpoints/{}",
        created["id"].as_str().unwrap()
    );
    for (method, path, timeout) in [
        (Method::POST, "/v1/users/anna/endpoints", 60_001),
        (Method::POST, "/v1/users/anna/endpoints", 3_600_000),
        (Method::PATCH, &path, 60_001),
    ] {
        let body = with(timeout).to_string();
        let (status, error) = errors::refusal(&server, method, path, &body).await;
        assert_eq!((status, &error["field"]), (400, &json!("timeout_ms")));
        let expected = format!(
            "expected at most 60000 milliseconds: only endpoints of the operator may have more, got {timeout}"
        );
        assert_eq!(error["message"], expected);
    }
    assert_eq!(server.get(&path).await["timeout_ms"], 60_000);
    let of_operator = create(&server, "/v1/endpoints", with(3_600_000)).await;
    assert_eq!(of_operator["timeout_ms"], 3_600_000);
}

#[tokio::test]
async fn an_endpoint_is_reached_through_its_owner_alone() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:9000/" });
    let created = create(&server, "/v1/users/anna/endpoints", body).await;
    let id = created["id"].as_str().unwrap();
    for owner in ["/v1/endpoints", "/v1/users/ben/endpoints"] {
        for (method, rest) in [
            (Method::GET, ""),
            (Method::PATCH, ""),
            (Method::DELETE, ""),
            (Method::POST, "/test"),
            (Method::POST, "/replay"),
            (Method::POST, "/secret/rotate"),
        ] {
            let path = format!("{owner}/{id}{rest}");
            let refused = refusal(&server, method, &path, &json!({})).await;
            assert_eq!(refused, (404, "id".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn both_secrets_sign_during_a_rotation() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let body = json!({ "url": receiver.url() });
    let created = create(&server, "/v1/endpoints", body).await;
    let path = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());
    let rotate = format!("{path}/secret/rotate");
    let rotated = server.post(&rotate, &json!({})).await;
    let rotated: Value = rotated.json().await.unwrap();
    assert_ne!(rotated["secret"], created["secret"]);
    let test = server.post(&format!("{path}/test"), &Value::Null).await;
    assert_eq!(test.status(), StatusCode::ACCEPTED);
    let test: Value = test.json().await.unwrap();
    let webhook = receiver.next().await;
    assert_eq!(webhook.json()["type"], "tidings.test");
    for document in [&created, &rotated] {
        let secret = Secret::parse(document["secret"].as_str().unwrap()).unwrap();
        webhook.verify(&Verifier::new(secret)).unwrap();
    }
    let delivery = format!("/v1/deliveries/{}", test["delivery_id"].as_str().unwrap());
    assert_eq!(server.get(&delivery).await["endpoint_id"], created["id"]);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_endpoint_with_one_secret() {
    let home = Home::new();
    let server = home.start().await;
    let create = async |server: &Server, path: &str, key: &str, url: &str| {
        let request = http().post(server.at(path));
        let request = request.header("Idempotency-Key", key);
        let response = request.json(&json!({ "url": url })).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (path, url) = ("/v1/users/anna/endpoints", "http://127.0.0.1:9000/");
    let first = create(&server, path, "once", url).await;
    assert_eq!(first.0, 201);
    assert!(first.1.contains("whsec_"), "{}", first.1);
    // After a change, and after a restart.
    let created: Value = serde_json::from_str(&first.1).unwrap();
    let one = format!("{path}/{}", created["id"].as_str().unwrap());
    server
        .patch(&one, &json!({ "description": "changed" }))
        .await;
    assert_eq!(create(&server, path, "once", url).await, first);
    server.kill().await;
    let server = home.start().await;
    assert_eq!(create(&server, path, "\"once\"", url).await, first);
    assert_eq!(
        create(&server, path, "once", "http://127.0.0.1:9001/")
            .await
            .0,
        422
    );
    assert_eq!(create(&server, "/v1/endpoints", "once", url).await.0, 422);
    let all = server.get(path).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
    let repeats = (0..10).map(|_| create(&server, "/v1/endpoints", "another", url));
    let repeats = futures_util::future::join_all(repeats).await;
    assert!(
        repeats
            .iter()
            .all(|repeat| *repeat == repeats[0] && repeat.0 == 201)
    );
}

#[tokio::test]
async fn an_idempotency_key_is_refused_where_it_has_no_effect() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:9000/" });
    let created = create(&server, "/v1/endpoints", body).await;
    let id = created["id"].as_str().unwrap();
    let endpoint = format!("/v1/endpoints/{id}");
    for (method, path) in [
        (Method::PATCH, endpoint.clone()),
        (Method::DELETE, endpoint.clone()),
        (Method::POST, "/v1/presence/query".to_owned()),
        (
            Method::POST,
            "/v1/users/anna/notifications/read-all".to_owned(),
        ),
        (Method::POST, "/v1/users/anna/notifications/seen".to_owned()),
    ] {
        let request = http().request(method, server.at(&path));
        let request = request
            .header("Idempotency-Key", "order-17")
            .json(&json!({}));
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 400, "{path}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["field"], "Idempotency-Key", "{path}");
    }
}

/// Posts with an idempotency key; gives the status and the body.
async fn post_once(server: &Server, path: &str, key: &str, body: &Value) -> (u16, String) {
    let request = http().post(server.at(path)).header("Idempotency-Key", key);
    let response = request.json(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn an_operation_on_an_endpoint_is_carried_out_once_for_its_idempotency_key() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let body = json!({ "url": receiver.url(), "event_types": ["order"] });
    let created = create(&server, "/v1/endpoints", body).await;
    let endpoint = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());

    // Another route, another body and a restart do not matter.
    let test = format!("{endpoint}/test");
    let first = post_once(&server, &test, "test", &json!({})).await;
    assert_eq!(first.0, 202, "{}", first.1);
    let event = receiver.next().await.id().to_owned();
    assert_eq!(post_once(&server, &test, "test", &json!({})).await, first);
    let rotate = format!("{endpoint}/secret/rotate");
    assert_eq!(post_once(&server, &rotate, "test", &json!({})).await.0, 422);
    let rotated = post_once(&server, &rotate, "rotate", &json!({})).await;
    assert_eq!(rotated.0, 200, "{}", rotated.1);
    let other = json!({ "overlap_ms": 1 });
    assert_eq!(post_once(&server, &rotate, "rotate", &other).await.0, 422);
    server.kill().await;
    let server = home.start().await;
    assert_eq!(post_once(&server, &test, "test", &json!({})).await, first);
    let again = post_once(&server, &rotate, "rotate", &json!({})).await;
    assert_eq!(again, rotated);

    let delivery: Value = serde_json::from_str(&first.1).unwrap();
    let delivery = format!(
        "/v1/deliveries/{}",
        delivery["delivery_id"].as_str().unwrap()
    );
    let retry = format!("{delivery}/retry");
    let retried = post_once(&server, &retry, "retry", &json!({})).await;
    assert_eq!(retried.0, 200, "{}", retried.1);
    let attempt = receiver.next().await;
    assert_eq!(attempt.id(), event);
    let secret: Value = serde_json::from_str(&rotated.1).unwrap();
    let secret = Secret::parse(secret["secret"].as_str().unwrap()).unwrap();
    attempt.verify(&Verifier::new(secret)).unwrap();
    assert_eq!(
        post_once(&server, &retry, "retry", &json!({})).await,
        retried
    );

    let replay = format!("{endpoint}/replay");
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    for _ in 0..2 {
        let replayed = post_once(&server, &replay, "replay", &since).await;
        assert_eq!(replayed, (202, String::new()));
    }

    // What fails is not kept.
    assert_eq!(
        server.patch(&endpoint, &json!({ "enabled": false })).await["enabled"],
        false
    );
    assert_eq!(post_once(&server, &test, "later", &json!({})).await.0, 409);
    server.patch(&endpoint, &json!({ "enabled": true })).await;
    let later = post_once(&server, &test, "later", &json!({})).await;
    assert_eq!(later.0, 202, "{}", later.1);
    receiver.next().await;
    let deliveries = server.get("/v1/deliveries?limit=100").await;
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 2);
    let attempts = server.get(&format!("{delivery}/attempts")).await;
    assert_eq!(attempts["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_equal_requests_at_the_same_time_one_is_carried_out() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    let created = create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let test = format!("/v1/endpoints/{}/test", created["id"].as_str().unwrap());
    let requests = (0..20).map(|_| async {
        let request = http()
            .post(server.at(&test))
            .header("Idempotency-Key", "once");
        let response = request.send().await.unwrap();
        let status = response.status();
        let wait = response.headers().get("retry-after").cloned();
        let document: Value = response.json().await.unwrap();
        if status == 409 {
            assert_eq!(document["error"]["code"], "request_running");
            assert_eq!(wait.unwrap(), "1");
            return None;
        }
        assert_eq!(status, 202);
        Some(document["delivery_id"].clone())
    });
    let replies = futures_util::future::join_all(requests).await;
    let mut carried_out = replies.iter().flatten();
    let first = carried_out.next().unwrap();
    assert!(carried_out.all(|delivery| delivery == first));
    let deliveries = server.get("/v1/deliveries").await;
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn regression_a_repeat_gets_the_first_response_whatever_became_of_the_endpoint() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    let created = create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let endpoint = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());
    let requests = [
        ("secret/rotate", json!({})),
        ("test", json!({})),
        ("replay", json!({ "since": "2026-01-01T00:00:00Z" })),
    ];
    let all = async || {
        let mut responses = Vec::new();
        for (operation, body) in &requests {
            let path = format!("{endpoint}/{operation}");
            let response = post_once(&server, &path, operation, body).await;
            assert!((200..300).contains(&response.0), "{operation} {response:?}");
            responses.push(response);
        }
        responses
    };
    let first = all().await;
    server.patch(&endpoint, &json!({ "enabled": false })).await;
    assert_eq!(all().await, first, "disabled");
    let removed = http().delete(server.at(&endpoint)).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    assert_eq!(all().await, first, "removed");
    // Another idempotency key is another request.
    let late = post_once(&server, &format!("{endpoint}/test"), "late", &json!({})).await;
    assert_eq!(late.0, 404);
}

/// The effect and what is known of the request are one transaction, so there is nothing in between.
#[tokio::test]
async fn regression_a_repeat_after_a_kill_is_answered_at_once_and_does_nothing_twice() {
    let home = Home::new();
    let mut server = home.start().await;
    let created = create(
        &server,
        "/v1/endpoints",
        json!({ "url": "http://127.0.0.1:9/", "event_types": ["none"] }),
    )
    .await;
    let test = format!("/v1/endpoints/{}/test", created["id"].as_str().unwrap());
    let mut sent: Vec<String> = Vec::new();
    for round in 0..4 {
        let (done, mut progress) = tokio::sync::mpsc::unbounded_channel();
        let posting: Vec<_> = (0..16)
            .map(|caller| {
                let (url, done) = (server.at(&test), done.clone());
                tokio::spawn(async move {
                    let client = http();
                    let mut keys = Vec::new();
                    for n in 0.. {
                        let key = format!("{round}-{caller}-{n}");
                        keys.push(key.clone());
                        let request = client.post(&url).header("Idempotency-Key", key);
                        match request.send().await {
                            Ok(response) => assert_eq!(response.status(), 202),
                            Err(_killed) => break,
                        }
                        let _ended = done.send(());
                    }
                    keys
                })
            })
            .collect();
        for _ in 0..100 {
            progress.recv().await.unwrap();
        }
        server.kill().await;
        for keys in posting {
            sent.extend(keys.await.unwrap());
        }
        server = home.start().await;
        for key in &sent {
            let repeat = post_once(&server, &test, key, &json!({})).await;
            assert_eq!(repeat.0, 202, "{key}: {}", repeat.1);
        }
    }
    let mut events = 0;
    let mut path = "/v1/deliveries?limit=500".to_owned();
    loop {
        let page = server.get(&path).await;
        events += page["data"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/deliveries?limit=500&cursor={next}");
    }
    assert_eq!(events, sent.len());
}
