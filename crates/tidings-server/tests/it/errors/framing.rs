//! Bodies whose length is not told as HTTP demands it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::connect;
use crate::support::{Home, Server, soon};

/// One chunk with a notification, and the end of the body.
const CHUNKS: &str = "1b\r\n{\"user_id\":\"a\",\"payload\":1}\r\n0\r\n\r\n";

/// Posts a body as it is, and gives all that the server sends until it closes the connection. The sending ends with
/// the body, if it breaks off.
async fn post(server: &Server, path: &str, headers: &str, body: &str, breaks_off: bool) -> String {
    let mut stream = connect(server).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    if breaks_off {
        stream.shutdown().await.unwrap();
    }
    let mut reply = String::new();
    let read = soon("the response", stream.read_to_string(&mut reply)).await;
    read.unwrap();
    reply
}

/// Where a body can be sent, beside a new request bin.
const PATHS: &[&str] = &[
    "/v1/notifications",
    "/notifications",
    "/v1/nothing",
    "/health/live",
];

async fn new_bin(server: &Server) -> String {
    let made = server.post("/v1/bins", &json!({})).await;
    let bin: Value = made.json().await.unwrap();
    bin["path"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_refused_everywhere() {
    let home = Home::new();
    let server = home.start().await;
    let bin = &*new_bin(&server).await;
    for path in PATHS.iter().copied().chain([bin]) {
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            "identity, chunked",
            "chunked;a=b, chunked",
            ", chunked",
            "chunked\r\nTransfer-Encoding: chunked",
            "gzip\r\nTransfer-Encoding: chunked",
        ] {
            let header = format!("Transfer-Encoding: {coding}\r\n");
            let reply = post(&server, path, &header, CHUNKS, false).await;
            assert!(
                reply.starts_with("HTTP/1.1 400 "),
                "{path} {coding} {reply}"
            );
            assert!(
                reply.contains(r#""field":"Transfer-Encoding""#),
                "{path} {coding} {reply}"
            );
        }
    }
    for coding in ["chunked", "Chunked"] {
        let header = format!("Connection: close\r\nTransfer-Encoding: {coding}\r\n");
        let reply = post(&server, "/v1/notifications", &header, CHUNKS, false).await;
        assert!(reply.starts_with("HTTP/1.1 201 "), "{coding} {reply}");
    }
}

#[tokio::test]
async fn chunks_that_cannot_be_read_are_no_broken_connection() {
    let home = Home::new();
    let server = home.start().await;
    let bin = &*new_bin(&server).await;
    let long = "x".repeat(100 << 10);
    let (extension, trailer) = (
        CHUNKS.replacen("1b\r\n", &format!("1b;{long}\r\n"), 1),
        CHUNKS.replace("0\r\n\r\n", &format!("0\r\nx: {long}{long}\r\n\r\n")),
    );
    let wrong = [
        "-1\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "x\r\n",
        "\r\n",
        "1b 1\r\n",
        &CHUNKS.replacen("1b\r\n", "1b\n", 1),
        &CHUNKS.replacen("1b\r\n", "1b;a\n", 1),
        &CHUNKS.replacen("1b\r\n", "1a\r\n", 1),
        &CHUNKS.replace("0\r\n\r\n", "0\r\nno trailer\r\n\r\n"),
        &extension,
        &trailer,
    ];
    let chunked = "Transfer-Encoding: chunked\r\n";
    for path in ["/v1/notifications", "/notifications", bin] {
        for body in wrong {
            let shown: String = body.chars().take(40).collect();
            let reply = post(&server, path, chunked, body, false).await;
            assert!(reply.starts_with("HTTP/1.1 400 "), "{path} {shown} {reply}");
            assert!(
                reply.contains(r#""code":"invalid_chunks""#),
                "{path} {shown} {reply}"
            );
        }
        for (headers, body) in [
            (chunked, ""),
            (chunked, "1"),
            (chunked, "1b\r\n{"),
            (chunked, "1\r\n{\r\n0\r\n"),
            ("Content-Length: 2\r\n", "{"),
        ] {
            let reply = post(&server, path, headers, body, true).await;
            assert!(reply.starts_with("HTTP/1.1 400 "), "{path} {body} {reply}");
            assert!(
                reply.contains(r#""code":"incomplete_body""#),
                "{path} {body} {reply}"
            );
        }
    }
}
