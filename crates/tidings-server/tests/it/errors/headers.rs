//! Headers that a request lacks, or has twice.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Home, http};

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

#[tokio::test]
async fn an_idempotency_key_has_255_characters_at_most() {
    let home = Home::new();
    let server = home.start().await;
    for (length, status) in [(255, 201), (256, 400)] {
        let request = http()
            .post(server.at("/v1/notifications"))
            .header("Idempotency-Key", "x".repeat(length))
            .json(&serde_json::json!({ "user_id": "anna", "payload": 1 }));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{length}");
        let body: Value = response.json().await.unwrap();
        if status == 400 {
            assert_eq!(body["error"]["field"], "Idempotency-Key");
        }
    }
}

#[tokio::test]
async fn regression_a_request_that_names_no_host_or_a_broken_one_is_refused_with_keys_too() {
    const KEY: &str = "0123456789abcdef";
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    for (version, host, status) in [
        ("1.1", "", "400"),
        ("1.1", "Host: example.com\r\n", "200"),
        ("1.1", "Host: [::1]:8080\r\n", "200"),
        ("1.1", "Host:\r\n", "200"),
        ("1.1", "Host: two names\r\n", "400"),
        ("1.1", "Host: user@example.com\r\n", "400"),
        ("1.1", "Host: example.com/path\r\n", "400"),
        ("1.0", "", "200"),
    ] {
        for path in ["/v1/users/a/notifications", "/health/live"] {
            let mut stream = crate::raw::connect(&server).await;
            let head = format!(
                "GET {path} HTTP/{version}\r\n{host}Authorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            let line = format!("HTTP/{version} {status} ");
            assert!(reply.starts_with(&line), "{host} {reply}");
            assert!(
                status == "200" || reply.contains(r#""field":"Host""#),
                "{reply}"
            );
        }
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
            for (name, value) in [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
            ] {
                assert_eq!(reply.headers()[name], value, "{path}");
            }
            let error: Value = reply.json().await.unwrap();
            assert_eq!(error["error"]["message"], says, "{path}");
        }
    }
}

#[tokio::test]
async fn regression_the_key_of_a_websocket_is_16_bytes_in_base64() {
    let home = Home::new();
    let server = home.start().await;
    let good = "dGhlIHNhbXBsZSBub25jZQ==";
    for (keys, says) in [
        (&[][..], "expected 16 bytes in base64"),
        (&[""][..], "expected 16 bytes in base64"),
        (&["x"][..], "expected 16 bytes in base64"),
        (
            &["dGhlIHNhbXBsZSBub25jZQ"][..],
            "expected 16 bytes in base64",
        ),
        (&["dGhlIHNhbXBsZSBub25j"][..], "expected 16 bytes in base64"),
        (&[good, good][..], "given more than once"),
    ] {
        for path in ["/v1/users/a/ws", "/ws/a"] {
            let mut request = http()
                .get(server.at(path))
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13");
            for key in keys {
                request = request.header("Sec-WebSocket-Key", *key);
            }
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status(), 400, "{path} {keys:?}");
            let error: Value = reply.json().await.unwrap();
            let error = &error["error"];
            assert_eq!(error["field"], "Sec-WebSocket-Key", "{path} {keys:?}");
            assert_eq!(error["message"], says, "{path} {keys:?}");
        }
    }
}
