//! Connections that are silent, and clients that ask too much of a connection.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::raw::{Frame, RawSocket, masked};
use crate::support::{Home, Server};

const PONG: u8 = 0x8a;
const PING: u8 = 0x89;
const TEXT: u8 = 0x81;

#[tokio::test]
async fn regression_a_client_that_only_listens_survives_the_pause_after_a_busy_time() {
    let home = Home::with(&["--ping-interval", "1s"]);
    let server = home.start().await;
    let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    // For longer than three intervals there are events, and so neither pings nor pongs.
    for n in 0..8 {
        server.notify("anna", json!(n)).await;
        socket.until("notification").await;
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
    // More pings than may stay without a reply.
    for _ in 0..5 {
        assert_eq!(socket.next().await, Some(Frame::Ping));
        socket.until("ping").await;
        socket.send(PONG, b"").await;
    }
    server.notify("anna", json!("still here")).await;
    socket.until("notification").await;
}

/// A browser hides pings from a page, which could not notice then that its connection is dead.
#[tokio::test]
async fn regression_beside_each_ping_a_stream_has_a_frame_that_a_page_sees() {
    let home = Home::with(&["--ping-interval", "1s"]);
    let server = home.start().await;
    let text = || Frame::Text(json!({ "event": "ping" }));
    for (path, expected) in [
        (
            "/v1/users/anna/ws",
            [Frame::Ping, text(), Frame::Ping, text()].as_slice(),
        ),
        ("/ws/anna", [Frame::Ping, Frame::Ping].as_slice()),
    ] {
        let mut socket = RawSocket::open(&server, path).await;
        // It is served as one that sends something, then as one that is idle.
        socket.send(PING, b"").await;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let frame = socket.next().await.unwrap();
            if frame == Frame::Ping || frame == text() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, expected, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_replies_no_pings_is_closed_with_a_code() {
    for path in ["/v1/users/anna/ws", "/ws/anna"] {
        let home = Home::with(&["--ping-interval", "1s"]);
        let server = home.start().await;
        let mut socket = RawSocket::open(&server, path).await;
        let mut pings = 0;
        let code = loop {
            match socket.next().await {
                Some(Frame::Ping) => {
                    pings += 1;
                    assert!(pings <= 3, "{path}: pinged on and on");
                }
                Some(Frame::Close(code)) => break code,
                Some(_) => {}
                None => panic!("the connection ended without a close"),
            }
        };
        assert_eq!((pings, code), (3, 4201), "{path}");
    }
}

/// The unversioned stream has no frame for a change of the inbox.
#[tokio::test]
async fn regression_what_a_stream_does_not_send_delays_no_ping() {
    let home = Home::with(&["--ping-interval", "1s"]);
    let server = home.start().await;
    let notification = server.notify("anna", json!({ "message": "m" })).await;
    let id = notification["id"].as_str().unwrap();
    let mut socket = RawSocket::open(&server, "/ws/anna").await;
    assert!(matches!(socket.next().await, Some(Frame::Text(_))));
    let changes = async {
        for action in ["read", "unread"].iter().cycle() {
            let path = format!("/v1/users/anna/notifications/{id}/{action}");
            let response = server.post(&path, &json!({})).await;
            assert_eq!(response.status(), 200);
        }
    };
    tokio::select! {
        () = changes => {}
        frame = socket.next() => assert_eq!(frame, Some(Frame::Ping)),
    }
}

/// Whether a server does nothing for a moment.
async fn is_asleep(server: &Server) -> bool {
    for _ in 0..10 {
        if !server.is_asleep() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Each frame gets a reply: a pong, or an error because there is no such notification.
#[tokio::test]
async fn a_client_that_floods_and_reads_nothing_costs_no_memory() {
    let ping = masked(PING, &[0; 125]);
    let request = masked(TEXT, br#"{"read":"6f1c0a52d3e84b97-17"}"#);
    for (path, frame) in [
        ("/v1/users/anna/ws", &ping),
        ("/ws/anna", &ping),
        ("/v1/users/anna/ws", &request),
    ] {
        let home = Home::new();
        let server = home.start().await;
        let before = server.memory();
        let mut socket = RawSocket::open(&server, path).await;
        let frames = frame.repeat(1000);
        // A frame that is cut would violate the protocol, and end the connection.
        let mut rest = &frames[..];
        let limit = 64 << 20;
        let mut sent = 0;
        while sent < limit {
            match timeout(Duration::from_secs(1), socket.0.write(rest)).await {
                Ok(written) => {
                    let written = written.unwrap();
                    sent += written;
                    rest = &rest[written..];
                    if rest.is_empty() {
                        rest = &frames;
                    }
                }
                Err(_) if is_asleep(&server).await => break,
                // It is slow, and reads on.
                Err(_) => {}
            }
        }
        let grown = server.memory().saturating_sub(before);
        assert!(sent < limit, "{path}: the server read on without end");
        assert!(grown < 16 << 20, "{path}: {grown} bytes");
        // The others are served.
        server.notify("anna", json!(1)).await;
    }
}
