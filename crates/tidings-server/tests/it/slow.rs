//! Clients that send slowly or nothing: what they cost, and whom they delay.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::raw::{RawSocket, address, unread_events};
use crate::support::{Home, Server, http, soon};
use crate::tokens::{KEY, SECRET, token};

/// Connects so many clients that send the same and nothing else, as far as the server reads it.
fn clients(server: &Server, count: usize, sent: &str) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let sent: Arc<str> = sent.into();
    for _ in 0..count {
        let (address, sent) = (address(server).to_owned(), Arc::clone(&sent));
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _closed = stream.write_all(sent.as_bytes()).await;
            std::future::pending::<()>().await;
        });
    }
    clients
}

/// The memory of a server once it grows no more.
async fn settled(server: &Server) -> usize {
    let settled = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = server.memory();
            if now <= before + (1 << 20) {
                return now;
            }
            before = now;
        }
    };
    soon("memory that stays the same", settled).await
}

/// A head with so many bytes of fields, without its end.
fn head(server: &Server, bytes: usize) -> String {
    let host = address(server);
    let padding = "x".repeat(bytes);
    format!("POST /v1/notifications HTTP/1.1\r\nHost: {host}\r\nX-Padding: {padding}\r\n")
}

#[tokio::test]
async fn slow_heads_cost_little_memory_each() {
    const COUNT: usize = 1000;
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let before = settled(&server).await;
    let slow = clients(&server, COUNT, &head(&server, 12_000));
    let each = (settled(&server).await - before) / COUNT;
    assert!(each < 48 << 10, "{each} bytes each");
    server.notify("anna", json!(2)).await;
    drop(slow);
}

/// With a profile for speed, it is half of that.
const MOST_OF_A_SILENT_STREAM: usize = 3 << 10;

#[tokio::test]
async fn silent_streams_cost_little_memory_each() {
    const COUNT: usize = 1000;
    for kind in ["events", "ws"] {
        let home = Home::new();
        let server = home.start().await;
        // What the first streams cost once is not of the others.
        let _first = streams(&server, "first", kind, 200).await;
        let before = settled(&server).await;
        let _streams = streams(&server, "user", kind, COUNT).await;
        let each = (settled(&server).await - before) / COUNT;
        assert!(
            each < MOST_OF_A_SILENT_STREAM,
            "{each} bytes for each of {kind}"
        );
    }
}

/// Streams of so many users, each of which has had its first bytes.
async fn streams(server: &Server, name: &str, kind: &str, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for number in 0..count {
        let path = format!("/v1/users/{name}{number}/{kind}");
        let mut stream = if kind == "ws" {
            RawSocket::open(server, &path).await.0
        } else {
            unread_events(server, &path).await
        };
        let mut begun = Vec::new();
        while !contains(&begun, b"caught_up") {
            let read = soon("the beginning", stream.read_buf(&mut begun)).await;
            assert!(read.unwrap() > 0, "the stream ended");
        }
        streams.push(stream);
    }
    streams
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn slow_bodies_cost_bounded_memory_and_delay_no_small_one() {
    const COUNT: usize = 250;
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let before = settled(&server).await;
    // A few of them leave no room for another large one.
    let length = 1_040_000;
    let head = head(&server, 0);
    let request = format!(
        "{head}Content-Length: {length}\r\n\r\n{}",
        "x".repeat(length - 1)
    );
    let slow = clients(&server, COUNT, &request);
    let body = json!({ "user_id": "anna", "payload": "x".repeat(100_000) });
    let post = || server.post("/v1/notifications", &body);
    // Once there is no room for it, it waits while the small ones are sent.
    let large = async {
        let refused = async {
            loop {
                let response = post().await;
                if response.status() != 201 {
                    return response;
                }
            }
        };
        let refused = soon("a refusal", refused).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["code"], "busy");
    };
    let others = async {
        for n in 0..10 {
            let small = server.notify("anna", json!([n, "x".repeat(10_000)]));
            let small = timeout(Duration::from_secs(5), small).await;
            small.expect("a small body waits for no other");
        }
        settled(&server).await - before
    };
    let ((), grown) = tokio::join!(large, others);
    // The room for bodies, and what connections buffer while they wait; without the bound it was 285 MiB.
    assert!(grown < 200 << 20, "{} MiB", grown >> 20);

    drop(slow);
    let accepted = async { while server.post("/v1/notifications", &body).await.status() != 201 {} };
    soon("room for a large body", accepted).await;
}

/// Sends the beginnings of bodies of 1 MiB, more than there is room for, each on a connection of its own.
async fn half_sent(server: &Server, path: &str, fields: &str) -> Vec<TcpStream> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\n{fields}",
        address(server)
    );
    let begin = format!(
        "{head}Content-Length: 1048576\r\n\r\n{}",
        "x".repeat(20_000)
    );
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address(server)).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    streams
}

async fn status_line(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    let read = stream.read_exact(&mut line);
    soon("a status", read).await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

/// Publishes a body of 100 kB with a key, and gives its status.
async fn publish_large(server: &Server) -> u16 {
    let body = json!({ "user_id": "ben", "payload": "x".repeat(100_000) });
    let request = http().post(server.at("/v1/notifications")).bearer_auth(KEY);
    request.json(&body).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn regression_a_body_for_an_unknown_bin_is_refused_before_it_is_read() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let path = "/bins/bin_00000000000000000000000000000000";
    let mut streams = half_sent(&server, path, "").await;
    for stream in &mut streams {
        assert_eq!(status_line(stream).await, "HTTP/1.1 404");
    }
    assert_eq!(publish_large(&server).await, 201);
}

#[tokio::test]
async fn regression_slow_bodies_of_users_leave_the_room_of_the_keys() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let field = format!("Authorization: Bearer {}\r\n", token("anna", 600));
    let path = "/v1/users/anna/notifications/seen";
    let mut streams = half_sent(&server, path, &field).await;
    // The last one has waited for room long enough, while the first ones keep theirs.
    let last = streams.last_mut().unwrap();
    assert_eq!(status_line(last).await, "HTTP/1.1 503");
    assert_eq!(publish_large(&server).await, 201);
}
