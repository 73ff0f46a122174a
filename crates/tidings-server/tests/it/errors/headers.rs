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
