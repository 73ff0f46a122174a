//! The id of a request, and what the log says of a request.

use reqwest::Response;
use serde_json::{Value, json};

use crate::raw::RawSocket;
use crate::support::{Home, Server, http};
use crate::tokens::{KEY, SECRET, token};

fn id(response: &Response) -> String {
    let mut ids = response.headers().get_all("x-request-id").iter();
    let id = ids.next().unwrap().to_str().unwrap().to_owned();
    assert!(ids.next().is_none());
    id
}

/// The lines of the log.
async fn log(server: Server) -> Vec<Value> {
    let (_, text) = server.stop("-TERM").await;
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

#[tokio::test]
async fn the_id_of_the_caller_is_in_the_response_and_another_is_made_if_it_is_none() {
    let home = Home::new();
    let server = home.start().await;
    let client = http();
    let paths = [
        "/health/live",
        "/v1/users/anna/notifications",
        "/nothing",
        "/v1/users/anna/events",
        "/",
    ];
    for path in paths {
        let sent = client
            .get(server.at(path))
            .header("X-Request-Id", "order-17:{\"a\"}");
        assert_eq!(
            id(&sent.send().await.unwrap()),
            "order-17:{\"a\"}",
            "{path}"
        );
        let mut made = Vec::new();
        for sent in ["", "two words", "x".repeat(129).as_str()] {
            let sent = client.get(server.at(path)).header("X-Request-Id", sent);
            made.push(id(&sent.send().await.unwrap()));
        }
        made.push(id(&client.get(server.at(path)).send().await.unwrap()));
        assert!(made.iter().all(|id| id.len() == 32), "{path} {made:?}");
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 4, "{path} {made:?}");
    }
    let page = client.get(server.at("/v1/users/anna/notifications"));
    let page = page.header("Origin", "http://localhost:3000");
    let page = page.send().await.unwrap();
    let exposed = page.headers()["access-control-expose-headers"]
        .to_str()
        .unwrap();
    assert!(
        exposed.split(", ").any(|name| name == "x-request-id"),
        "{exposed}"
    );
}

#[tokio::test]
async fn a_request_has_one_line_with_its_route_status_duration_id_and_caller() {
    let home = Home::with(&[
        "--log=info,tidings_server=debug",
        "--log-format=json",
        "--api-key",
        KEY,
        "--jwt-secret",
        SECRET,
    ]);
    let server = home.start().await;
    let client = http();
    let call = async |id: &str, path: &str, key: &str| {
        let request = client.get(server.at(path)).bearer_auth(key);
        request.header("x-request-id", id).send().await.unwrap()
    };
    let body = json!({ "name": "shop", "scopes": ["read"] });
    let request = client
        .post(server.at("/v1/keys"))
        .bearer_auth(KEY)
        .json(&body);
    let created: Value = request.send().await.unwrap().json().await.unwrap();
    let key = created["key"].as_str().unwrap();
    let inbox = "/v1/users/anna/notifications";
    let token = token("anna", 60);
    for (id, secret, status) in [
        ("of-the-operator", KEY, 200),
        ("of-a-key", key, 200),
        ("of-a-user", &token, 200),
        ("of-a-stranger", "another-key-0123456789", 401),
    ] {
        assert_eq!(call(id, inbox, secret).await.status(), status);
    }
    assert_eq!(
        call("lost", "/lost/anna?token=secret", KEY).await.status(),
        404
    );

    let (_, text) = server.stop("-TERM").await;
    for secret in [KEY, key, &token, "another-key", "token=secret"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let lines = || {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
    };
    let finished = |id: &str| {
        let of_it = |line: &Value| {
            line["span"]["request_id"] == id && line["fields"]["message"] == "request finished"
        };
        let found: Vec<_> = lines().filter(of_it).collect();
        assert_eq!(found.len(), 1, "{id}");
        found[0].clone()
    };
    let route = "/v1/users/{user}/notifications";
    for (id, route, status, caller) in [
        ("of-the-operator", route, 200, json!("operator")),
        ("of-a-key", route, 200, json!("key shop")),
        ("of-a-user", route, 200, json!("user")),
        ("of-a-stranger", route, 401, Value::Null),
        ("lost", "unknown", 404, Value::Null),
    ] {
        let line = finished(id);
        let (span, fields) = (&line["span"], &line["fields"]);
        assert_eq!(span["http.request.method"], "GET");
        assert_eq!(span["http.route"], route);
        assert_eq!(span["caller"], caller, "{id}");
        assert_eq!(fields["http.response.status_code"], status);
        assert!(fields["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
    }
    // Not the last line alone.
    let refused = lines().find(|line| line["fields"]["message"] == "refused a caller");
    assert_eq!(refused.unwrap()["span"]["request_id"], "of-a-stranger");
}

#[tokio::test]
async fn lines_of_streams_have_the_id_of_their_request() {
    let home = Home::with(&["--log=tidings_server=debug", "--log-format=json"]);
    let server = home.start().await;
    let mut socket = RawSocket::open(&server, "/v1/users/anna/ws?ack=false").await;
    socket.until("caught_up").await;
    drop(socket);
    crate::support::soon("the end of the stream", async {
        while server.get("/v1/users/anna/presence").await["online"] == true {}
    })
    .await;
    let lines = log(server).await;
    let of = |says: &str| {
        let line = lines.iter().find(|line| line["fields"]["message"] == says);
        line.unwrap_or_else(|| panic!("{says}: {lines:?}")).clone()
    };
    let ended = of("a WebSocket ended");
    assert_eq!(ended["fields"]["user"], "anna");
    assert_eq!(ended["span"]["request_id"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn an_error_of_the_server_names_the_request_and_so_does_its_line_in_the_log() {
    let home = Home::with(&["--log-format=json", "--jwt-jwks", "http://127.0.0.1:1/keys"]);
    let server = home.start().await;
    let request = http().get(server.at("/v1/users/anna/notifications"));
    // For a key of the set, which was never loaded.
    let request = request
        .bearer_auth("eyJhbGciOiJFZERTQSJ9.e30.AAAA")
        .header("x-request-id", "no-keys");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    let length: usize = response.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["error"]["code"], "token_keys_unavailable");
    assert_eq!(error["error"]["request_id"], "no-keys");

    let database = rusqlite::Connection::open(home.database()).unwrap();
    database.execute_batch("DROP TABLE api_key").unwrap();
    let body = json!({ "name": "shop", "scopes": ["read"] });
    let request = http().post(server.at("/v1/keys")).json(&body);
    let response = request
        .header("x-request-id", "no-table")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 500);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["request_id"], "no-table");
    // An error of the caller says what is wrong, and needs no look into the log.
    let unknown = http().get(server.at("/nothing")).send().await.unwrap();
    let error: Value = unknown.json().await.unwrap();
    assert!(error["error"].get("request_id").is_none(), "{error}");

    let lines = log(server).await;
    let says = "a request failed, replying 500";
    let line = lines.iter().find(|line| line["fields"]["message"] == says);
    let line = line.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["span"]["request_id"], "no-table");
    assert_eq!(line["span"]["http.route"], "/v1/keys");
}
