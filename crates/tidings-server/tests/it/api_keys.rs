//! API keys that are kept in the database: over HTTP, on the command line, and on several instances.

use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tidings_test_support::Schema;

use crate::encryption::is_in_a_row;
use crate::support::{Events, Home, Server, binary, http, soon};
use crate::tokens::{SECRET, signed};

const KEY: &str = "a-key-for-this-test-0123456789";

fn with_key() -> Home {
    Home::with(&["--api-key", KEY])
}

/// Makes a call with a key; gives the status and the body, `null` if there is none.
async fn call(
    server: &Server,
    key: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let mut request = http().request(method, server.at(path)).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Makes a key; gives the response.
pub(crate) async fn create(server: &Server, scopes: &[&str]) -> Value {
    let body = json!({ "name": "shop", "scopes": scopes });
    let (status, created) = call(server, KEY, Method::POST, "/v1/keys", Some(body)).await;
    assert_eq!(status, 201, "{created}");
    created
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

async fn inbox(server: &Server, key: &str) -> u16 {
    let path = "/v1/users/anna/notifications";
    call(server, key, Method::GET, path, None).await.0
}

async fn publish(server: &Server, key: &str) -> u16 {
    let body = json!({ "user_id": "anna", "payload": 1 });
    let path = "/v1/notifications";
    call(server, key, Method::POST, path, Some(body)).await.0
}

async fn revoke(server: &Server, id: &str) -> u16 {
    let path = format!("/v1/keys/{id}");
    call(server, KEY, Method::DELETE, &path, None).await.0
}

#[tokio::test]
async fn a_caller_is_told_who_they_are_and_what_they_may_do() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let who = async |credential: &str| {
        let (status, says) = call(&server, credential, Method::GET, "/v1/whoami", None).await;
        assert_eq!(status, 200, "{says}");
        says
    };
    let all = ["publish", "read", "endpoints", "metrics", "admin"];
    let operator = json!({ "kind": "operator", "name": null, "user_id": null, "scopes": all, "expires_at": null });
    assert_eq!(who(KEY).await, operator);
    let key = create(&server, &["read", "publish"]).await;
    let expected = json!({
        "kind": "key", "name": "shop", "user_id": null, "scopes": ["publish", "read"], "expires_at": null,
    });
    assert_eq!(who(text(&key, "key")).await, expected);
    let expires = jiff::Timestamp::now().as_second() + 600;
    let mut claims = json!({ "sub": "anna", "exp": expires });
    let says = who(&signed(&claims)).await;
    assert_eq!(
        (&says["kind"], &says["user_id"], &says["scopes"]),
        (&json!("user"), &json!("anna"), &json!(["read"]))
    );
    // With the difference of clocks that the server allows.
    let accepted: jiff::Timestamp = text(&says, "expires_at").parse().unwrap();
    assert!(accepted.as_second() >= expires, "{says}");
    claims["endpoints"] = json!(true);
    assert_eq!(
        who(&signed(&claims)).await["scopes"],
        json!(["read", "endpoints"])
    );

    let (status, _) = call(
        &server,
        "a-wrong-key-0123456789",
        Method::GET,
        "/v1/whoami",
        None,
    )
    .await;
    assert_eq!(status, 401);
    let (status, error) = call(&server, KEY, Method::GET, "/v1/whoami?verbose=1", None).await;
    assert_eq!((status, text(&error["error"], "field")), (400, "verbose"));

    let home = Home::new();
    let server = home.start().await;
    let response = http().get(server.at("/v1/whoami")).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap(), operator);
}

#[tokio::test]
async fn a_key_works_within_its_scopes_over_a_restart_until_it_is_revoked() {
    let home = with_key();
    let server = home.start().await;
    let created = create(&server, &["publish", "read"]).await;
    let key = text(&created, "key");
    assert!(key.starts_with("tk_") && key.len() == 46, "{created}");
    assert!(key.starts_with(text(&created, "prefix")));
    assert_eq!(
        (inbox(&server, key).await, publish(&server, key).await),
        (200, 201)
    );
    let (status, error) = call(&server, key, Method::GET, "/v1/keys", None).await;
    assert_eq!(status, 403);
    let says = "the API key does not have the scope `admin`";
    assert_eq!(text(&error["error"], "message"), says);

    let list = async |server: &Server| call(server, KEY, Method::GET, "/v1/keys", None).await.1;
    let used = list(&server).await["data"][0]["last_used_at"].clone();
    let at: jiff::Timestamp = used.as_str().unwrap().parse().unwrap();
    assert!((jiff::Timestamp::now() - at).get_seconds() < 60, "{at}");

    server.stop("-TERM").await.0.code().unwrap();
    let server = home.start().await;
    let mut listed = created.clone();
    listed.as_object_mut().unwrap().remove("key");
    listed["last_used_at"] = used;
    assert_eq!(list(&server).await, json!({ "data": [listed] }));
    assert_eq!(inbox(&server, key).await, 200);
    let files = ["tidings.db", "tidings.db-wal"].map(|name| std::fs::read(home.path().join(name)));
    for file in files.into_iter().flatten() {
        let stored = file.windows(key.len()).any(|bytes| bytes == key.as_bytes());
        assert!(!stored, "the key is in the database");
    }

    let id = text(&created, "id");
    assert_eq!(revoke(&server, id).await, 204);
    assert_eq!(inbox(&server, key).await, 401);
    assert_eq!(revoke(&server, id).await, 404);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked_or_expires() {
    let home = with_key();
    let server = home.start().await;
    let created = create(&server, &["read"]).await;
    let open = async |key: &str| {
        let request = http().get(server.at("/v1/users/anna/events"));
        let response = request.bearer_auth(key).send().await.unwrap();
        let mut events = Events::of(response);
        events.until("tidings.caught_up").await;
        events
    };
    let mut revoked = open(text(&created, "key")).await;
    let mut stays = open(KEY).await;
    let at = jiff::Timestamp::now() + std::time::Duration::from_secs(8);
    let body = json!({ "name": "short", "scopes": ["read"], "expires_at": at });
    let (_, short) = call(&server, KEY, Method::POST, "/v1/keys", Some(body)).await;
    let mut short_stream = open(text(&short, "key")).await;

    assert_eq!(revoke(&server, text(&created, "id")).await, 204);
    let (_, bye) = revoked.until("tidings.bye").await;
    assert_eq!(bye.json()["code"], 4004);
    let (_, expiring) = short_stream.until("tidings.expiring").await;
    assert_eq!(expiring.json()["expires_at"], short["expires_at"]);
    let (_, bye) = short_stream.until("tidings.bye").await;
    assert_eq!(bye.json()["code"], 4003);
    assert_eq!(inbox(&server, text(&short, "key")).await, 401);
    assert_eq!(publish(&server, KEY).await, 201);
    assert_eq!(stays.next().await.json()["payload"], 1);
}

#[tokio::test]
async fn a_request_for_a_key_is_checked_field_by_field() {
    let home = with_key();
    let server = home.start().await;
    for (body, field) in [
        (json!({ "scopes": ["read"] }), "name"),
        (json!({ "name": "", "scopes": ["read"] }), "name"),
        (
            json!({ "name": "x".repeat(101), "scopes": ["read"] }),
            "name",
        ),
        (json!({ "name": "a\u{1b}[2J", "scopes": ["read"] }), "name"),
        (json!({ "name": "a\nb", "scopes": ["read"] }), "name"),
        (json!({ "name": "a" }), "scopes"),
        (json!({ "name": "a", "scopes": [] }), "scopes"),
        (json!({ "name": "a", "scopes": "read" }), "scopes"),
        (
            json!({ "name": "a", "scopes": ["read", "write"] }),
            "scopes[1]",
        ),
        (json!({ "name": "a", "scopes": ["read", "read"] }), "scopes"),
        (
            json!({ "name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "name": "a", "scopes": ["read"], "expires_at": "tomorrow" }),
            "expires_at",
        ),
        (
            json!({ "name": "a", "scopes": ["read"], "for": "1d" }),
            "for",
        ),
    ] {
        let (status, error) =
            call(&server, KEY, Method::POST, "/v1/keys", Some(body.clone())).await;
        assert_eq!(
            (status, text(&error["error"], "field")),
            (400, field),
            "{body}"
        );
    }
    let (_, list) = call(&server, KEY, Method::GET, "/v1/keys", None).await;
    assert_eq!(list, json!({ "data": [] }));
}

/// Makes a key by a request that can be repeated; gives the status and the body.
async fn create_once(server: &Server, caller: Option<&str>, body: &Value) -> (u16, Value) {
    let request = http().post(server.at("/v1/keys")).json(body);
    let mut request = request.header("Idempotency-Key", "once");
    if let Some(key) = caller {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn count(server: &Server) -> usize {
    let (_, all) = call(server, KEY, Method::GET, "/v1/keys", None).await;
    all["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_key_is_made_once_for_an_idempotency_key_and_never_stored() {
    const OTHER: &str = "another-key-for-this-test-0123456789";
    let home = Home::with(&["--api-key", KEY, "--api-key", OTHER]);
    let server = home.start().await;
    let body = json!({ "name": "shop", "scopes": ["admin"] });
    let first = create_once(&server, Some(KEY), &body).await;
    assert_eq!(first.0, 201, "{}", first.1);
    let (id, key) = (text(&first.1, "id"), text(&first.1, "key"));
    assert_eq!(create_once(&server, Some(KEY), &body).await, first);
    let other = json!({ "name": "shop", "scopes": ["read"] });
    let conflict = create_once(&server, Some(KEY), &other).await;
    assert_eq!(conflict.1["error"]["code"], "idempotency_conflict");
    // A caller with an idempotency key of its own.
    let others = create_once(&server, Some(key), &body).await;
    assert_eq!(others.0, 201, "{}", others.1);
    assert_ne!(others.1["id"], first.1["id"]);
    assert_eq!(count(&server).await, 2);

    server.kill().await;
    let server = home.start().await;
    assert_eq!(create_once(&server, Some(KEY), &body).await, first);
    // The keys of the configuration share their idempotency keys, and only the one that was sent opens the response.
    let unread = create_once(&server, Some(OTHER), &body).await;
    assert_eq!(unread.0, 409, "{}", unread.1);
    assert_eq!(unread.1["error"]["code"], "response_unreadable");
    let message = text(&unread.1["error"], "message");
    assert!(message.contains("revoke it"), "{message}");
    assert_eq!(count(&server).await, 2);
    assert_eq!(revoke(&server, id).await, 204);
    assert_eq!(create_once(&server, Some(KEY), &body).await, first);

    server.stop("-TERM").await.0.code().unwrap();
    assert!(is_in_a_row(&home.database(), "of-caller:sealed:1:"));
    for key in [key, text(&others.1, "key")] {
        assert!(!is_in_a_row(&home.database(), &key[7..]), "{key}");
    }
    // A key of the server changes nothing for the caller.
    for encryption in ["A".repeat(43), "E".repeat(43) + "," + &"A".repeat(43)] {
        let mut command = home.command();
        command.env("TIDINGS_ENCRYPTION_KEY", &encryption);
        let server = Server::of(command).await;
        assert_eq!(create_once(&server, Some(KEY), &body).await, first);
        soon("the encryption", async {
            while is_in_a_row(&home.database(), "of-caller:") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(create_once(&server, Some(KEY), &body).await, first);
        server.stop("-TERM").await.0.code().unwrap();
    }
}

#[tokio::test]
async fn a_repeat_for_a_key_does_not_depend_on_its_expiry() {
    let home = with_key();
    let server = home.start().await;
    let end = jiff::Timestamp::now() + std::time::Duration::from_millis(1500);
    let body = json!({ "name": "shop", "scopes": ["read"], "expires_at": end });
    let first = create_once(&server, Some(KEY), &body).await;
    assert_eq!(first.0, 201, "{}", first.1);
    while jiff::Timestamp::now() <= end {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(create_once(&server, Some(KEY), &body).await, first);
    assert_eq!(count(&server).await, 1);
}

#[tokio::test]
async fn an_open_server_repeats_the_response_with_a_key_until_it_stops() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "name": "shop", "scopes": ["read"] });
    let first = create_once(&server, None, &body).await;
    assert_eq!(first.0, 201, "{}", first.1);
    assert_eq!(create_once(&server, None, &body).await, first);
    server.stop("-TERM").await.0.code().unwrap();
    assert!(!is_in_a_row(&home.database(), &text(&first.1, "key")[7..]));
    let server = home.start().await;
    let unread = create_once(&server, None, &body).await;
    assert_eq!(unread.0, 409, "{}", unread.1);
    assert_eq!(unread.1["error"]["code"], "response_unreadable");
    let keys = server.get("/v1/keys").await;
    assert_eq!(keys["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn idempotency_keys_of_two_keys_never_meet() {
    let home = with_key();
    let server = home.start().await;
    let notify = async |key: &str, payload: u64| {
        let request = http().post(server.at("/v1/notifications")).bearer_auth(key);
        let body = json!({ "user_id": "anna", "payload": payload });
        let response = request.header("Idempotency-Key", "1").json(&body).send();
        response.await.unwrap().status().as_u16()
    };
    let (one, two) = (
        create(&server, &["publish"]).await,
        create(&server, &["publish"]).await,
    );
    assert_eq!(notify(text(&one, "key"), 1).await, 201);
    assert_eq!(notify(text(&two, "key"), 2).await, 201);
    assert_eq!(notify(KEY, 3).await, 201);
    assert_eq!(notify(text(&one, "key"), 4).await, 422);
}

/// On a server with `--dev` that needs no key, one that is sent counts.
#[tokio::test]
async fn an_open_server_checks_a_key_that_is_sent() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "name": "shop", "scopes": ["publish"] });
    let response = server.post("/v1/keys", &body).await;
    let created: Value = response.json().await.unwrap();
    let key = text(&created, "key");
    assert_eq!(
        (publish(&server, key).await, inbox(&server, key).await),
        (201, 403)
    );
    assert_eq!(inbox(&server, "any-other-key-0123456789").await, 401);
    let request = http().get(server.at("/v1/whoami"));
    let other = request.basic_auth("anna", Some("secret"));
    assert_eq!(other.send().await.unwrap().status(), 401);
    let path = format!("/v1/keys/{}", text(&created, "id"));
    let revoked = http().delete(server.at(&path)).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    assert_eq!(publish(&server, key).await, 401);
    assert_eq!(server.get("/v1/whoami").await["kind"], "operator");
}

#[tokio::test]
async fn keys_are_managed_on_the_command_line() {
    let home = with_key();
    let server = home.start().await;
    let run = async |arguments: &[&str]| {
        let mut command = binary();
        command
            .arg("key")
            .args(arguments)
            .args(["--url", &server.url, "--api-key", KEY]);
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (ok, key, described) = run(&[
        "create",
        "the shop",
        "--scope",
        "publish,read",
        "--for",
        "90d",
    ])
    .await;
    assert!(ok, "{described}");
    assert_eq!(
        (publish(&server, &key).await, inbox(&server, &key).await),
        (201, 200)
    );
    assert!(!described.contains(&key), "{described}");
    let (ok, list, _) = run(&["list"]).await;
    assert!(ok && list.lines().count() == 1, "{list}");
    assert!(
        list.contains("publish,read") && list.ends_with("\"the shop\""),
        "{list}"
    );
    let (_, json, _) = run(&["list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(described.contains(text(&json, "id")), "{described}");
    let (ok, out, said) = run(&["revoke", text(&json, "id")]).await;
    assert!(ok && out.is_empty());
    assert_eq!(said, format!("revoked {}", text(&json, "id")));
    let (ok, out, said) = run(&["list"]).await;
    assert!(ok && out.is_empty());
    assert_eq!(said, "no keys");
    assert_eq!(
        run(&["list", "--json"]).await,
        (true, String::new(), String::new())
    );
    assert_eq!(inbox(&server, &key).await, 401);
    let (ok, _, refused) = run(&["revoke", text(&json, "id")]).await;
    assert!(!ok && refused.contains("no such API key"), "{refused}");
    for wrong in [
        ["create", "a"].as_slice(),
        &["create", "a", "--scope", "write"],
    ] {
        assert!(!run(wrong).await.0);
    }
}

/// As on a full disk: a key that its owner has not got must not stay valid.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn regression_a_key_that_cannot_be_shown_is_revoked_again() {
    let home = with_key();
    let server = home.start().await;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let process = binary()
        .args(["key", "create", "shop", "--scope", "read"])
        .args(["--url", &server.url, "--api-key", KEY])
        .stdout(full.unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = process.wait_with_output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "cannot write the key: the disk is full; it is revoked again";
    assert!(said.contains(expected), "{said}");
    let (_, list) = call(&server, KEY, Method::GET, "/v1/keys", None).await;
    assert_eq!(list, json!({ "data": [] }));
}

#[tokio::test]
async fn regression_one_row_that_cannot_be_read_does_not_hide_the_others() {
    let home = Home::with(&["--api-key", KEY, "--log", "warn"]);
    let server = home.start().await;
    let (bad, good) = (
        create(&server, &["read"]).await,
        create(&server, &["read"]).await,
    );
    server.stop("-TERM").await.0.code().unwrap();
    let database = rusqlite::Connection::open(home.database()).unwrap();
    let spoil = "UPDATE api_key SET scopes = 'read,of-the-future' WHERE id = ?1";
    assert_eq!(database.execute(spoil, [text(&bad, "id")]).unwrap(), 1);
    drop(database);

    let server = home.start().await;
    let (status, list) = call(&server, KEY, Method::GET, "/v1/keys", None).await;
    assert_eq!(status, 200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["id"], good["id"]);
    assert_eq!(inbox(&server, text(&good, "key")).await, 200);
    assert_eq!(inbox(&server, text(&bad, "key")).await, 401);
    assert_eq!(revoke(&server, text(&bad, "id")).await, 204);
    let (_, log) = server.stop("-TERM").await;
    let about_it = log.lines().filter(|line| line.contains(text(&bad, "id")));
    assert_eq!(about_it.count(), 1, "{log}");
}

#[tokio::test]
async fn there_are_a_thousand_keys_at_most() {
    let home = with_key();
    let server = home.start().await;
    create(&server, &["read"]).await;
    server.stop("-TERM").await.0.code().unwrap();
    let database = rusqlite::Connection::open(home.database()).unwrap();
    let columns = "name, prefix, scopes, created_at, expires_at, last_used_at";
    let more = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 998)
         INSERT INTO api_key (id, digest, {columns})
         SELECT 'key_' || n, randomblob(32), {columns} FROM api_key, n"
    );
    assert_eq!(database.execute(&more, []).unwrap(), 998);
    drop(database);

    let server = home.start().await;
    create(&server, &["read"]).await;
    let new = json!({ "name": "one more", "scopes": ["read"] });
    let (status, refused) = call(&server, KEY, Method::POST, "/v1/keys", Some(new)).await;
    assert_eq!(status, 409);
    assert_eq!(refused["error"]["code"], "too_many_keys");
}

#[tokio::test]
async fn regression_a_delete_with_fields_is_refused() {
    let home = with_key();
    let server = home.start().await;
    let created = create(&server, &["read"]).await;
    let body = json!({ "url": "https://example.com/" });
    let endpoints = "/v1/users/anna/endpoints";
    let (_, endpoint) = call(&server, KEY, Method::POST, endpoints, Some(body)).await;
    for path in [
        format!("/v1/keys/{}", text(&created, "id")),
        format!("{endpoints}/{}", text(&endpoint, "id")),
    ] {
        let fields = Some(json!({ "dry_run": true }));
        let (status, error) = call(&server, KEY, Method::DELETE, &path, fields).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(text(&error["error"], "field"), "dry_run");
        let empty = Some(json!({}));
        let (status, _) = call(&server, KEY, Method::DELETE, &path, empty).await;
        assert_eq!(status, 204, "{path}");
    }
}

#[tokio::test]
async fn a_key_outside_the_header_is_refused_in_words() {
    for more in [
        &[] as &[&str],
        &["--jwt-secret", "0123456789abcdef0123456789abcdef"],
    ] {
        let home = Home::with(&[&["--api-key", KEY], more].concat());
        let server = home.start().await;
        let created = create(&server, &["read"]).await;
        for key in [KEY, text(&created, "key")] {
            let url = server.at(&format!("/v1/users/anna/events?token={key}"));
            let response = http().get(url).send().await.unwrap();
            assert_eq!(response.status(), 401);
            let error: Value = response.json().await.unwrap();
            let message = text(&error["error"], "message");
            assert!(message.starts_with("an API key is accepted only in the header"));
        }
    }
}

#[tokio::test]
async fn a_change_of_the_keys_reaches_every_instance_within_seconds() {
    let schema = Schema::create().await;
    let home = Home::on(&schema.url(), &["--api-key", KEY]);
    let (first, second) = (home.start().await, home.start().await);
    let created = create(&first, &["read"]).await;
    let key = text(&created, "key");
    let becomes = async |server: &Server, status: u16| {
        while inbox(server, key).await != status {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("the new key", becomes(&second, 200)).await;
    let request = http()
        .get(second.at("/v1/users/anna/events"))
        .bearer_auth(key);
    let mut events = Events::of(request.send().await.unwrap());
    events.until("tidings.caught_up").await;
    assert_eq!(revoke(&first, text(&created, "id")).await, 204);
    assert_eq!(inbox(&first, key).await, 401);
    soon("the revocation", becomes(&second, 401)).await;
    let (_, bye) = events.until("tidings.bye").await;
    assert_eq!(bye.json()["code"], 4004);
}
