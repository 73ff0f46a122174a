//! Request bins, by HTTP.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Home, Server, http};

const KEY: &str = "a-key-for-this-test-0123456789";

fn request(server: &Server, method: Method, path: &str) -> RequestBuilder {
    http().request(method, server.at(path)).bearer_auth(KEY)
}

/// The status, and the body if it is JSON.
async fn reply(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

async fn create(server: &Server) -> (u16, Value) {
    reply(request(server, Method::POST, "/v1/bins")).await
}

#[tokio::test]
async fn a_sender_needs_the_address_alone_and_who_looks_needs_a_key() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (_, bin) = create(&server).await;
    let (path, id) = (bin["path"].as_str().unwrap(), bin["id"].as_str().unwrap());
    let sent = http().post(server.at(path)).header("x-team", "shop");
    assert_eq!(reply(sent.body("\u{1}not JSON")).await, (200, Value::Null));
    let shown = format!("/v1/bins/{id}");
    assert_eq!(reply(http().get(server.at(&shown))).await.0, 401);

    let (status, shown) = reply(request(&server, Method::GET, &shown)).await;
    assert_eq!((status, &shown["received"]), (200, &json!(1)));
    let taken = &shown["data"][0];
    assert_eq!(taken["body"], "\u{1}not JSON");
    for time in [&shown["created_at"], &taken["received_at"]] {
        let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
        assert_eq!(time.subsec_nanosecond() % 1000, 0, "{time}");
    }
    assert_eq!(taken["verified"], Value::Null);
    let headers = taken["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({ "name": "x-team", "value": "shop" })));
    // Another id is not found.
    let unknown = http().post(server.at("/bins/bin_00000000000000000000000000000000"));
    let (status, error) = reply(unknown).await;
    assert_eq!((status, &error["error"]["field"]), (404, &json!("id")));
}

#[tokio::test]
async fn what_a_bin_may_not_do_is_refused_by_name() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (_, bin) = create(&server).await;
    let path = format!("/v1/bins/{}", bin["id"].as_str().unwrap());
    let change = |body: Value| request(&server, Method::PATCH, &path).json(&body);
    for (body, field) in [
        (json!({ "status": 199 }), "status"),
        (json!({ "status": 600 }), "status"),
        (json!({ "status": 65736 }), "status"),
        (json!({ "status": "200" }), "status"),
        (json!({ "secret": "nonsense" }), "secret"),
        (json!({ "secret": 1 }), "secret"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        let (status, error) = reply(change(body.clone())).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(error["error"]["field"], field, "{error}");
    }
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let changed = reply(change(json!({ "status": 599, "secret": secret }))).await;
    let state =
        |(status, bin): (u16, Value)| (status, bin["status"].clone(), bin["has_secret"].clone());
    assert_eq!(state(changed), (200, json!(599), json!(true)));
    // What is missing stays, and `null` resets.
    let changed = reply(change(json!({ "status": null }))).await;
    assert_eq!(state(changed), (200, json!(200), json!(true)));
    let changed = reply(change(json!({ "secret": null }))).await;
    assert_eq!(state(changed), (200, json!(200), json!(false)));
}

#[tokio::test]
async fn there_are_as_many_bins_as_the_documentation_says() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let page = include_str!("../../../../docs/http.md");
    let (_, rest) = page
        .split_once("409 `too_many_bins` if there are ")
        .unwrap();
    let most: usize = rest.split(' ').next().unwrap().parse().unwrap();
    let mut last = Value::Null;
    for _ in 0..most {
        let (status, bin) = create(&server).await;
        assert_eq!(status, 201);
        last = bin;
    }
    let (status, error) = create(&server).await;
    assert_eq!(status, 409);
    assert_eq!(error["error"]["code"], "too_many_bins");
    let path = format!("/v1/bins/{}", last["id"].as_str().unwrap());
    let removed = reply(request(&server, Method::DELETE, &path)).await;
    assert_eq!(removed.0, 204);
    assert_eq!(create(&server).await.0, 201);
}

#[tokio::test]
async fn a_bin_says_whether_endpoints_may_be_at_the_host_that_it_is_called_by() {
    let key = ["--api-key", KEY];
    for (setting, of_loopback, of_name) in [
        (
            "--webhook-private-addresses=false",
            json!(false),
            Value::Null,
        ),
        ("--webhook-private-addresses", json!(true), json!(true)),
    ] {
        let home = Home::with(&[&key[..], &[setting]].concat());
        let server = home.start().await;
        let (_, bin) = create(&server).await;
        let path = format!("/v1/bins/{}", bin["id"].as_str().unwrap());
        for (host, expected) in [
            ("127.0.0.1:8080", &of_loopback),
            ("localhost", &of_loopback),
            ("[::1]:80", &of_loopback),
            ("8.8.8.8", &json!(true)),
            ("tidings.example:8080", &of_name),
        ] {
            let shown = request(&server, Method::GET, &path).header("host", host);
            let (status, shown) = reply(shown).await;
            assert_eq!((status, &shown["reachable"]), (200, expected), "{host}");
            assert_eq!(shown["host"], host);
        }
    }
}
