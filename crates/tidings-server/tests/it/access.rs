//! Who may call: keys, origins, and the names that a `--dev` server replies to.

use std::process::Stdio;

use tokio::io::AsyncReadExt;

use crate::support::{Home, binary, http, soon};

const KEY: &str = "a-key-for-this-test-0123456789";

#[tokio::test]
async fn with_keys_a_caller_without_one_gets_nothing() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let paths = [
        "/v1/users/a/notifications",
        "/v1/users/a/events",
        "/notifications/a",
        "/ws/a",
    ];
    for path in paths {
        for header in [None, Some("Bearer wrong"), Some(KEY)] {
            let mut request = http().get(server.at(path));
            if let Some(header) = header {
                request = request.header("Authorization", header);
            }
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status(), 401, "{path} {header:?}");
            assert_eq!(reply.headers()["www-authenticate"], "Bearer");
        }
    }
    let request = http().get(server.at(paths[0])).bearer_auth(KEY);
    assert_eq!(request.send().await.unwrap().status(), 200);
    for open in ["/health/live", "/health/ready", "/"] {
        assert_eq!(
            http().get(server.at(open)).send().await.unwrap().status(),
            200,
            "{open}"
        );
    }
}

#[tokio::test]
async fn pages_of_strangers_are_refused_and_those_of_listed_origins_let_in() {
    let home = Home::with(&["--allow-origin", "https://app.example.com"]);
    let server = home.start().await;
    let own = server.url.clone();
    for (origin, status) in [
        ("https://evil.example.com", 403),
        ("null", 403),
        ("https://app.example.com", 200),
        ("http://localhost:3000", 200),
        (own.as_str(), 200),
    ] {
        let path = server.at("/v1/users/a/notifications");
        let reply = http()
            .get(path)
            .header("Origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), status, "{origin}");
        let allowed = reply.headers().get("access-control-allow-origin");
        assert_eq!(allowed.is_some(), status == 200, "{origin}");
        // A cache must not give one page the response to another.
        let vary = reply.headers().get("vary").is_some_and(|it| it == "Origin");
        assert_eq!(vary, status == 200, "{origin}");
        // No cookie is a credential here.
        let cookies = reply.headers().get("access-control-allow-credentials");
        assert_eq!(cookies, None, "{origin}");

        let upgrade = http()
            .get(server.at("/v1/users/a/ws"))
            .header("Origin", origin)
            .header("Connection", "upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let expected = if status == 200 { 101 } else { 403 };
        assert_eq!(upgrade.send().await.unwrap().status(), expected, "{origin}");
    }
}

#[tokio::test]
async fn regression_two_origins_are_refused() {
    let home = Home::new();
    let server = home.start().await;
    let request = http()
        .get(server.at("/v1/users/a/notifications"))
        .header("Origin", "http://localhost:3000")
        .header("Origin", "https://evil.example.com");
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let allowed = reply.headers().get("access-control-allow-origin");
    assert_eq!(allowed, None);
    let error: serde_json::Value = reply.json().await.unwrap();
    assert_eq!(error["error"]["field"], "Origin");
}

#[tokio::test]
async fn an_image_on_a_strangers_page_reaches_no_stream() {
    let home = Home::new();
    let server = home.start().await;
    let get = |path: &str| {
        let request = http().get(server.at(path));
        request.header("Sec-Fetch-Site", "cross-site").send()
    };
    assert_eq!(
        get("/v1/users/a/events?since=undelivered")
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(
        get("/").await.unwrap().status(),
        200,
        "a link to the page is fine"
    );
}

#[tokio::test]
async fn a_dev_server_does_not_reply_to_foreign_names() {
    let home = Home::new();
    let server = home.start().await;
    let request = http()
        .get(server.at("/v1/users/a/notifications"))
        .header("Host", "rebound.example.com");
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn without_dev_or_keys_the_server_refuses_to_start_and_says_why() {
    let everywhere: &[&str] = &["--dev", "--listen", "0.0.0.0:0"];
    for (arguments, says) in [
        (&[] as &[&str], "--api-key"),
        (everywhere, "the command line: --dev"),
    ] {
        let mut process = binary()
            .arg("serve")
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        let mut stderr = process.stderr.take().unwrap();
        soon("the refusal", stderr.read_to_string(&mut text))
            .await
            .unwrap();
        assert!(!process.wait().await.unwrap().success());
        assert!(text.starts_with(&format!("tidings: {says}: ")), "{text}");
    }
}

#[tokio::test]
async fn the_scheme_of_the_key_has_no_case() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    for (header, status) in [
        (format!("bearer {KEY}"), 200),
        (format!("BEARER   {KEY}"), 200),
        (format!("Bearer{KEY}"), 401),
        (format!("Bearer {KEY}x"), 401),
    ] {
        let request = http()
            .get(server.at("/v1/users/a/notifications"))
            .header("Authorization", &header);
        assert_eq!(request.send().await.unwrap().status(), status, "{header}");
    }
}

#[tokio::test]
async fn preflights_allow_what_tracing_adds_and_refusals_name_their_setting() {
    let home = Home::with(&["--log", "info"]);
    let server = home.start().await;
    let preflight = |origin: &'static str| {
        http()
            .request(reqwest::Method::OPTIONS, server.at("/v1/notifications"))
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
    };
    let reply = preflight("http://localhost:3000").send().await.unwrap();
    let allowed = reply.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    for header in [
        "traceparent",
        "tracestate",
        "baggage",
        "x-requested-with",
        "x-request-id",
    ] {
        assert!(allowed.split(", ").any(|one| one == header), "{allowed}");
    }
    assert_eq!(
        reply.headers()["access-control-allow-methods"],
        "GET, POST, PATCH, DELETE"
    );
    assert_eq!(
        reply.headers()["access-control-expose-headers"],
        "retry-after, ratelimit, ratelimit-policy, x-request-id, date"
    );
    let refused = preflight("https://elsewhere.example").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let refused = http()
        .get(server.at("/health/live"))
        .header("Host", "rebound.example");
    assert_eq!(refused.send().await.unwrap().status(), 403);
    let (_, log) = server.stop("-TERM").await;
    for (refused, setting) in [
        ("https://elsewhere.example", "--allow-origin"),
        ("rebound.example", "--api-key"),
    ] {
        let line = log.lines().find(|line| line.contains(refused));
        assert!(line.is_some_and(|line| line.contains(setting)), "{log}");
    }
}
