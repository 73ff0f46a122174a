//! Tokens of users, in a browser's ways of sending them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;

use crate::support::{Events, Home, Server, binary, http, said_by};
use crate::websocket::Socket;

pub(crate) const KEY: &str = "a-key-for-this-test-0123456789";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn home(more: &[&str]) -> Home {
    let arguments = [&["--api-key", KEY, "--jwt-secret", SECRET], more].concat();
    Home::with(&arguments)
}

/// A token that the server accepts for so many seconds: it allows 5 seconds more than `exp`.
pub(crate) fn token(user: &str, seconds: i64) -> String {
    signed(&json!({ "sub": user, "exp": jiff::Timestamp::now().as_second() + seconds - 5 }))
}

pub(crate) fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}

/// Notifies as a server with a key.
async fn notify(server: &Server, user: &str, payload: Value) {
    let body = json!({ "user_id": user, "payload": payload });
    let request = http().post(server.at("/v1/notifications")).json(&body);
    let response = request.bearer_auth(KEY).send().await.unwrap();
    assert_eq!(response.status(), 201);
}

/// Opens a WebSocket with these headers; gives the response in any case.
async fn upgrade(
    server: &Server,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (Option<Socket>, Reply) {
    let url = server.at(path).replacen("http", "ws", 1);
    let mut request = url.as_str().into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, response)) => (Some(Socket(socket)), Reply::of(&response)),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => (None, Reply::of(&response)),
        Err(error) => panic!("{error}"),
    }
}

/// What a test looks at in the response to an upgrade.
struct Reply {
    status: u16,
    protocol: Option<String>,
}

impl Reply {
    fn of(response: &Response) -> Self {
        let protocol = response.headers().get("sec-websocket-protocol");
        Self {
            status: response.status().as_u16(),
            protocol: protocol.map(|protocol| protocol.to_str().unwrap().to_owned()),
        }
    }
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_page_streams_with_a_token_in_the_url_or_a_subprotocol() {
    let home = home(&[]);
    let server = home.start().await;
    let token = token("anna", 60);
    let url = server.at(&format!("/v1/users/anna/events?token={token}"));
    let mut events = Events::open(&url, None).await.unwrap();
    events.until("tidings.caught_up").await;

    let path = "/v1/users/anna/ws";
    let offered = format!("tidings.v1, tidings.token.{token}");
    let (socket, response) = upgrade(&server, path, &[("sec-websocket-protocol", &offered)]).await;
    assert_eq!(response.protocol.as_deref(), Some("tidings.v1"));
    let mut socket = socket.unwrap();
    socket.until("caught_up").await;
    let (in_url, _) = upgrade(&server, &format!("{path}?token={token}"), &[]).await;
    let mut in_url = in_url.unwrap();
    in_url.until("caught_up").await;

    notify(&server, "anna", json!("hello")).await;
    assert_eq!(events.next().await.json()["payload"], "hello");
    assert_eq!(socket.next().await["data"]["payload"], "hello");
    assert_eq!(in_url.next().await["data"]["payload"], "hello");

    let of_ben = format!("/v1/users/ben/ws?token={token}");
    let (_, refused) = upgrade(&server, &of_ben, &[]).await;
    assert_eq!(refused.status, 403);
    let (_, refused) = upgrade(&server, path, &[]).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_refused_token_gets_its_rule_and_a_name_has_one_meaning() {
    let home = home(&[]);
    let server = home.start().await;
    let get = |path: &str, token: &str| {
        let request = http().get(server.at(path));
        request.bearer_auth(token).send()
    };
    let expired = get("/v1/users/anna/notifications", &token("anna", -60))
        .await
        .unwrap();
    assert_eq!(expired.status(), 401);
    assert_eq!(
        expired.headers()["www-authenticate"],
        "Bearer error=\"invalid_token\", error_description=\"the token has expired\""
    );
    let error: Value = expired.json().await.unwrap();
    assert_eq!(error["error"]["code"], "unauthorized");
    assert_eq!(error["error"]["message"], "the token has expired");

    let anna = token("anna", 60);
    for (path, status) in [
        ("/v1/users/anna/notifications", 200),
        ("/v1/users/%61nna/notifications", 200),
        ("/v1/users/Anna/notifications", 403),
        ("/v1/users/anna%20/notifications", 403),
        ("/v1/users/anna%2Fnotifications/notifications", 403),
        ("/v1/users/anna/endpoints", 403),
        ("/v1/deliveries", 403),
        ("/notifications/anna", 403),
        ("/ws/anna", 403),
    ] {
        let response = get(path, &anna).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_stream_is_warned_and_ends_when_its_token_expires() {
    let home = home(&[]);
    let server = home.start().await;
    // Half of it is for opening both streams, which are warned after that.
    let token = token("anna", 8);
    let url = server.at(&format!("/v1/users/anna/events?token={token}"));
    let mut events = Events::open(&url, None).await.unwrap();
    events.until("tidings.caught_up").await;
    let (socket, _) = upgrade(&server, &format!("/v1/users/anna/ws?token={token}"), &[]).await;
    let mut socket = socket.unwrap();
    socket.until("caught_up").await;
    notify(&server, "anna", json!("before")).await;

    let (before, expiring) = events.until("tidings.expiring").await;
    assert_eq!(before.len(), 1);
    let at: jiff::Timestamp = expiring.json()["expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let (_, bye) = events.until("tidings.bye").await;
    assert_eq!(bye.json()["code"], 4003);
    assert!(jiff::Timestamp::now() >= at);
    assert_eq!(events.try_next().await.unwrap(), None);

    let (before, expiring) = socket.until("expiring").await;
    assert_eq!(before.len(), 1);
    assert!(expiring["expires_at"].is_string());
    let (_, bye) = socket.until("bye").await;
    assert_eq!(bye["reason"], "the token or key has expired");
    assert_eq!(u16::from(socket.close_frame_only().await.code), 4003);

    // The browser tries again by itself, and stops at this status.
    assert_eq!(status(http().get(url)).await, 401);
}

#[tokio::test]
async fn a_cookie_is_accepted_from_pages_of_trusted_origins() {
    let home = home(&[
        "--jwt-cookie",
        "session",
        "--allow-origin",
        "https://app.example.com",
    ]);
    let server = home.start().await;
    let cookie = format!("other=1; session={}", token("anna", 60));
    let inbox = "/v1/users/anna/notifications";
    let request = |method: Method, path: &str, headers: &[(&'static str, &str)]| {
        let request = http()
            .request(method, server.at(path))
            .header("cookie", &cookie);
        let add = |request: RequestBuilder, (name, value): &(&'static str, &str)| {
            request.header(*name, *value)
        };
        status(headers.iter().fold(request, add))
    };
    let app: (&str, &str) = ("origin", "https://app.example.com");
    let own = ("origin", server.url.as_str());
    let evil = ("origin", "https://evil.example.com");
    let sibling = ("sec-fetch-site", "same-site");
    let read_all = format!("{inbox}/read-all");
    for (method, path, headers, expected) in [
        (Method::GET, inbox, &[] as &[_], 200),
        (
            Method::GET,
            inbox,
            &[("sec-fetch-site", "same-origin")],
            200,
        ),
        (Method::GET, inbox, &[app, sibling], 200),
        (Method::GET, inbox, &[evil], 403),
        (Method::GET, inbox, &[sibling], 403),
        (Method::GET, inbox, &[("sec-fetch-site", "cross-site")], 403),
        (Method::POST, &read_all, &[], 403),
        (Method::POST, &read_all, &[own], 200),
        (Method::POST, &read_all, &[app], 200),
        (Method::POST, &read_all, &[evil], 403),
    ] {
        let got = request(method.clone(), path, headers).await;
        assert_eq!(got, expected, "{method} {path} {headers:?}");
    }
    for (headers, expected) in [
        (&[] as &[_], 403),
        (&[own], 101),
        (&[app], 101),
        (&[evil], 403),
    ] {
        let all = [&[("cookie", cookie.as_str())], headers].concat();
        let (_, response) = upgrade(&server, "/v1/users/anna/ws", &all).await;
        assert_eq!(response.status, expected, "{headers:?}");
    }
    let page = http()
        .get(server.at(inbox))
        .header(app.0, app.1)
        .header("cookie", &cookie);
    let page = page.send().await.unwrap();
    assert_eq!(page.headers()["access-control-allow-credentials"], "true");
    // A credential that was sent on purpose counts, and a wrong one is not replaced by the cookie.
    let wrong = http()
        .get(server.at(inbox))
        .header("cookie", &cookie)
        .bearer_auth("a.b.c");
    assert_eq!(status(wrong).await, 401);
}

#[tokio::test]
async fn no_credential_is_in_the_log_and_each_refusal_names_its_rule() {
    let home = home(&["--log", "trace", "--jwt-cookie", "session"]);
    let server = home.start().await;
    let good = token("anna", 60);
    let path = "/v1/users/anna/notifications";
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let foreign = signed(&json!({ "sub": "anna", "exp": 9_999_999_999_i64, "aud": "billing" }));
    let refused = [
        (token("anna", -60), "the token has expired"),
        (unsigned, "the token is not signed"),
        (
            foreign,
            "the token has an aud, and the server has no --jwt-audience",
        ),
        (good.replace('.', "x."), "the token is not a JSON Web Token"),
    ];
    for sent in refused.iter().map(|(sent, _)| sent).chain([&good]) {
        let expected = if *sent == good { 200 } else { 401 };
        let in_header = http().get(server.at(path)).bearer_auth(sent);
        assert_eq!(status(in_header).await, expected);
        let in_query = http().get(server.at(&format!("{path}?token={sent}")));
        assert_eq!(status(in_query).await, expected);
        let in_cookie = http()
            .get(server.at(path))
            .header("cookie", format!("session={sent}"));
        assert_eq!(status(in_cookie).await, expected);
        let offered = format!("tidings.v1, tidings.token.{sent}");
        let headers = [("sec-websocket-protocol", offered.as_str())];
        let expected = if *sent == good { 101 } else { 401 };
        let (_, response) = upgrade(&server, "/v1/users/anna/ws", &headers).await;
        assert_eq!(response.status, expected);
    }
    let wrong_key = "a-wrong-key-0123456789";
    let wrong = http().get(server.at(path)).bearer_auth(wrong_key);
    assert_eq!(status(wrong).await, 401);
    let of_ben = http()
        .get(server.at("/v1/users/ben/notifications"))
        .bearer_auth(&good);
    assert_eq!(status(of_ben).await, 403);

    // A page of an unknown origin may have sent the cookie.
    let forged = http()
        .post(server.at(&format!("{path}/read-all")))
        .header("cookie", format!("session={good}"));
    assert_eq!(status(forged).await, 403);

    let (_, log) = server.stop("-TERM").await;
    let by_origin = log
        .lines()
        .find(|line| line.contains("refused a request by its origin"));
    let by_origin = by_origin.unwrap();
    let place = format!("url.path=\"{path}/read-all\"");
    assert!(by_origin.contains(&place), "{by_origin}");
    for (sent, rule) in &refused {
        assert!(
            log.lines()
                .any(|line| line.contains(rule) && line.contains("refused")),
            "{rule}"
        );
        for part in sent.split('.').filter(|part| part.len() > 20) {
            assert!(!log.contains(part), "{rule}");
        }
    }
    let refused = "the token is of another user than the one in the path";
    assert!(log.contains(refused), "{log}");
    for secret in [wrong_key, KEY, SECRET, good.rsplit('.').next().unwrap()] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn idempotency_keys_of_two_callers_never_meet() {
    let home = home(&[]);
    let server = home.start().await;
    let create = async |user: &str, token: String| {
        let url = server.at(&format!("/v1/users/{user}/endpoints"));
        let body = json!({ "url": "https://example.com/" });
        let request = http().post(url).json(&body).header("Idempotency-Key", "1");
        let response = request.bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 201);
        response.json::<Value>().await.unwrap()["id"].clone()
    };
    let with_endpoints = |user: &str| {
        let exp = jiff::Timestamp::now().as_second() + 60;
        signed(&json!({ "sub": user, "exp": exp, "endpoints": true }))
    };
    let of_anna = create("anna", with_endpoints("anna")).await;
    let of_ben = create("ben", with_endpoints("ben")).await;
    let of_key = create("anna", KEY.to_owned()).await;
    assert!(of_anna != of_ben && of_anna != of_key);
    assert_eq!(create("anna", with_endpoints("anna")).await, of_anna);
    assert_eq!(create("anna", KEY.to_owned()).await, of_key);
}

#[tokio::test]
async fn a_refusal_names_what_the_server_accepts() {
    let secret = ["--jwt-secret", SECRET];
    let in_url = format!("?token={}", token("anna", 60));
    for (more, query, key, expected) in [
        (
            &secret[..],
            "",
            None,
            "expected one header `Authorization: Bearer KEY` with a valid API key or token",
        ),
        // What could be no token is called no wrong token.
        (
            &secret,
            "",
            Some("a-mistyped-key-0123456789"),
            "the API key or token is not known: it is mistyped or revoked, or is of another server",
        ),
        (
            &[],
            "",
            Some("a-mistyped-key-0123456789"),
            "the API key is not known: it is mistyped or revoked, or is of another server",
        ),
        (
            &[],
            "",
            None,
            "expected one header `Authorization: Bearer KEY` with a valid API key",
        ),
        (
            &[],
            &in_url,
            None,
            "the server accepts no tokens: it has no --jwt-secret, --jwt-public-key or --jwt-jwks",
        ),
    ] {
        let server = Home::with(&[&["--api-key", KEY], more].concat());
        let server = server.start().await;
        let mut request = http().get(server.at(&format!("/v1/users/anna/notifications{query}")));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["message"], expected);
    }
}

#[tokio::test]
async fn regression_an_open_server_refuses_a_wrong_credential_in_every_place() {
    let server = Home::new().start().await;
    let key = format!("tk_{}", "A".repeat(43));
    for (wrong, says) in [
        ("garbage", "the server accepts no tokens"),
        (&key, "an API key is accepted only in the header"),
    ] {
        for path in ["/v1/users/anna/notifications", "/v1/whoami"] {
            let url = server.at(&format!("{path}?token={wrong}"));
            let response = http().get(url).send().await.unwrap();
            assert_eq!(response.status(), 401, "{path} {wrong}");
            let error: Value = response.json().await.unwrap();
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(says), "{message}");
        }
        let (path, offered) = (
            "/v1/users/anna/ws",
            format!("tidings.v1, tidings.token.{wrong}"),
        );
        let headers = [("sec-websocket-protocol", &offered[..])];
        let (_, reply) = upgrade(&server, path, &headers).await;
        assert_eq!(reply.status, 401, "{wrong}");
        let (_, reply) = upgrade(&server, &format!("{path}?token={wrong}"), &[]).await;
        assert_eq!(reply.status, 401, "{wrong}");
    }
    let (socket, _) = upgrade(&server, "/v1/users/anna/ws", &[]).await;
    assert!(socket.is_some());
}

/// Serves one document to every request.
async fn serve(document: Value) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let document = document.to_string();
    let app = axum::Router::new().route("/keys", axum::routing::get(async move || document));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}/keys")
}

/// A public key of Ed25519 as an entry of a key set.
fn jwk(pair: &KeyPair) -> Value {
    use base64::Engine;
    let x = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "alg": "EdDSA", "use": "sig", "x": x })
}

/// A token by the key of [`jwk`].
fn signed_by(pair: &KeyPair, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("a".to_owned());
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

#[tokio::test]
async fn tokens_are_verified_by_a_key_set_at_a_url() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let url = serve(json!({ "keys": [jwk(&pair)] })).await;
    let home = Home::with(&["--api-key", KEY, "--jwt-jwks", &url]);
    let server = home.start().await;
    let claims = json!({ "sub": "anna", "exp": 9_999_999_999_i64 });
    let token = signed_by(&pair, &claims);
    let path = "/v1/users/anna/notifications";
    assert_eq!(
        status(http().get(server.at(path)).bearer_auth(&token)).await,
        200
    );
    let of_secret = http().get(server.at(path)).bearer_auth(signed(&claims));
    assert_eq!(status(of_secret).await, 401);

    let home = Home::with(&[
        "--api-key",
        KEY,
        "--jwt-jwks",
        "http://user:hidden@127.0.0.1:1/keys?hidden",
    ]);
    let server = home.start().await;
    let request = http().get(server.at(path)).bearer_auth(&token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], "token_keys_unavailable");
    let (_, log) = server.stop("-TERM").await;
    let line = log
        .lines()
        .find(|line| line.contains("--jwt-jwks"))
        .unwrap();
    assert!(line.contains("http://127.0.0.1:1/keys"), "{line}");
    assert!(!log.contains("hidden"), "{log}");
}

/// The start does not wait for ever, and what comes is not kept without end.
#[tokio::test]
async fn a_key_set_that_is_late_too_large_or_an_error_is_not_used_and_the_log_says_why() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let set = json!({ "keys": [jwk(&pair)] });
    let mut large = set.clone();
    large["padding"] = "x".repeat(256 * 1024).into();
    let large = serve(large).await;
    let failing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = format!("http://{}/keys", failing.local_addr().unwrap());
    let reply = (axum::http::StatusCode::BAD_GATEWAY, set.to_string());
    let app = axum::Router::new().route("/keys", axum::routing::get(async move || reply));
    tokio::spawn(async move { axum::serve(failing, app).await.unwrap() });
    // It takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let late = format!("http://{}/keys", silent.local_addr().unwrap());
    let token = signed_by(&pair, &json!({ "sub": "anna", "exp": 9_999_999_999_i64 }));
    for (url, reason) in [
        (large, "expected at most 262144 bytes"),
        (error, "the server replied 502"),
        (late, "expected it within 5 s"),
    ] {
        let home = Home::with(&["--api-key", KEY, "--jwt-jwks", &url]);
        let server = home.start().await;
        let request = http().get(server.at("/v1/users/anna/notifications"));
        assert_eq!(status(request.bearer_auth(&token)).await, 503, "{reason}");
        let (_, log) = server.stop("-TERM").await;
        assert!(log.contains(reason), "{reason} in {log}");
    }
}

/// A redirect can lead to an address without TLS, or to one that only this machine reaches.
#[tokio::test]
async fn regression_redirects_of_a_key_set_are_not_followed() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let target = serve(json!({ "keys": [jwk(&pair)] })).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let redirect = axum::response::Redirect::temporary(&target);
    let app = axum::Router::new().route("/keys", axum::routing::get(async move || redirect));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let url = format!("http://{address}/keys");
    let home = Home::with(&["--api-key", KEY, "--jwt-jwks", &url]);
    let server = home.start().await;
    let token = signed_by(&pair, &json!({ "sub": "anna", "exp": 9_999_999_999_i64 }));
    let request = http().get(server.at("/v1/users/anna/notifications"));
    assert_eq!(status(request.bearer_auth(token)).await, 503);
    let (_, log) = server.stop("-TERM").await;
    assert!(log.contains("redirects are not followed"), "{log}");
}

#[tokio::test]
async fn a_key_set_with_unknown_kinds_of_keys_keeps_the_others_and_warns() {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let unknown = json!({ "kty": "AKP", "kid": "future", "alg": "ML-DSA-44", "pub": "AAAA" });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let set = json!({ "keys": [unknown, jwk(&pair)] });
    std::fs::write(&file, set.to_string()).unwrap();
    let home = Home::with(&["--api-key", KEY, "--jwt-jwks", file.to_str().unwrap()]);
    let server = home.start().await;
    let token = signed_by(&pair, &json!({ "sub": "anna", "exp": 9_999_999_999_i64 }));
    let request = http().get(server.at("/v1/users/anna/notifications"));
    assert_eq!(status(request.bearer_auth(token)).await, 200);
    let (_, log) = server.stop("-TERM").await;
    let line = log.lines().find(|line| line.contains("not supported"));
    assert!(line.is_some_and(|line| line.contains("future")), "{log}");
}

#[tokio::test]
async fn a_token_is_made_on_the_command_line() {
    let home = home(&["--jwt-issuer", "shop", "--jwt-audience", "tidings"]);
    let server = home.start().await;
    let make = async |arguments: &[&str]| {
        let output = binary()
            .arg("token")
            .args(arguments)
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    };
    let common = [
        "--jwt-secret",
        SECRET,
        "--jwt-issuer",
        "shop",
        "--jwt-audience",
        "tidings",
    ];
    let get = |path: &str, token: String| status(http().get(server.at(path)).bearer_auth(token));
    let (inbox, endpoints) = ("/v1/users/anna/notifications", "/v1/users/anna/endpoints");
    let plain = make(&[&["anna"], common.as_slice()].concat())
        .await
        .unwrap();
    assert_eq!(get(inbox, plain.clone()).await, 200);
    assert_eq!(get(endpoints, plain).await, 403);
    let more = [&["anna", "--for", "5m", "--endpoints"], common.as_slice()].concat();
    assert_eq!(get(endpoints, make(&more).await.unwrap()).await, 200);
    let no_issuer = make(&["anna", "--jwt-secret", SECRET]).await.unwrap();
    assert_eq!(get(inbox, no_issuer).await, 401);

    let refused = make(&["anna"]).await.unwrap_err();
    assert!(refused.contains("--jwt-secret"), "{refused}");
    let short = make(&["anna", "--jwt-secret", "hidden"]).await.unwrap_err();
    assert!(
        short.contains("32 bytes") && !short.contains("hidden"),
        "{short}"
    );
    for arguments in [
        ["..", "--jwt-secret", SECRET].as_slice(),
        &["anna", "--for", "366d"],
    ] {
        make(arguments).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_server_does_not_start_with_keys_for_tokens_that_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.pem");
    let private = KeyPair::generate_for(&rcgen::PKCS_ED25519)
        .unwrap()
        .serialize_pem();
    std::fs::write(&wrong, private).unwrap();
    let wrong = wrong.to_str().unwrap();
    let weak = folder.path().join("weak.json");
    let (n, e) = (format!("{}8", "_".repeat(170)), "AQAB");
    let set = json!({ "keys": [{ "kty": "RSA", "kid": "old", "n": n, "e": e }] });
    std::fs::write(&weak, set.to_string()).unwrap();
    let weak = weak.to_str().unwrap();
    let large = folder.path().join("large.json");
    let padding = " ".repeat(256 * 1024);
    std::fs::write(&large, format!("{set}{padding}")).unwrap();
    let large = large.to_str().unwrap();
    for (arguments, says) in [
        (
            ["--jwt-secret", "hidden-but-short"],
            "'--jwt-secret <SECRET>': expected at least 32 bytes",
        ),
        (
            ["--jwt-public-key", wrong],
            "is a private key; expected the public key of it",
        ),
        (
            ["--jwt-public-key", "/missing.pem"],
            "--jwt-public-key: cannot read /missing.pem",
        ),
        (
            ["--jwt-jwks", wrong],
            "expected a JSON Web Key Set: an object with a list `keys`",
        ),
        (
            ["--jwt-jwks", weak],
            "the key \"old\" is an RSA key of 1024 bits; expected 2048 to 8192 bits",
        ),
        (["--jwt-jwks", large], "expected at most 262144 bytes"),
        (["--jwt-jwks", "/dev/zero"], "expected at most 262144 bytes"),
        (
            ["--jwt-public-key", "/dev/zero"],
            "--jwt-public-key: cannot read /dev/zero: expected at most 262144 bytes",
        ),
        (
            ["--jwt-secret-file", "/dev/zero"],
            "--jwt-secret-file: cannot read /dev/zero: expected at most 4096 bytes",
        ),
        (
            ["--config", "/dev/zero"],
            "cannot read the configuration file /dev/zero: expected at most 1048576 bytes",
        ),
        (["--jwt-issuer", ""], "expected at least one character"),
        (["--jwt-audience", ""], "expected at least one character"),
        (
            ["--jwt-issuer", "shop"],
            "--jwt-issuer: only beside --jwt-secret",
        ),
        (["--jwt-cookie", "a b"], "expected the name of a cookie"),
    ] {
        let (started, _, text) = said_by(&mut Home::with(&arguments).command()).await;
        assert!(!started, "{arguments:?}");
        assert!(text.contains(says), "{text}");
        assert!(
            !text.contains("hidden") && !text.contains("PRIVATE"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn regression_no_cache_keeps_the_response_to_one_user_for_another() {
    let arguments = [
        "--api-key",
        KEY,
        "--jwt-secret",
        SECRET,
        "--jwt-cookie=session",
    ];
    let home = Home::with(&arguments);
    let server = home.start().await;
    let cookie = format!("session={}", token("anna", 600));
    for (path, status) in [
        ("/v1/whoami", 200),
        ("/v1/users/anna/notifications", 200),
        ("/v1/users/anna/presence", 200),
        ("/v1/users/ben/notifications", 403),
        ("/v1/users/anna/notifications?limit=x", 400),
        ("/nothing", 404),
        ("/health/live", 200),
    ] {
        let request = http().get(server.at(path)).header("cookie", &cookie);
        let request = request.header("origin", server.at(""));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
    }
}
