//! Stopping loses nothing, and says what was left.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{RawSocket, connect, is_full, unread_events};
use crate::support::{Home, Server, said_by, signal_process, soon};
use crate::websocket::Socket;

#[tokio::test]
async fn streams_get_a_farewell_with_a_hint_to_come_back_and_then_the_server_ends() {
    for signal in ["-TERM", "-INT"] {
        let home = Home::new();
        let server = home.start().await;
        server.notify("anna", json!(1)).await;
        let mut events = server.events("anna", "?since=start").await;
        let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
        events.until("tidings.caught_up").await;
        socket.until("caught_up").await;
        let stopped = tokio::spawn(server.stop(signal));
        let (_, bye) = events.until("tidings.bye").await;
        assert_eq!(bye.json()["code"], 4200);
        assert!(bye.json()["reconnect_after_ms"].is_u64());
        assert_eq!(events.try_next().await.unwrap(), None);
        let (_, bye) = socket.until("bye").await;
        assert!(bye["reconnect_after_ms"].is_u64());
        assert_eq!(u16::from(socket.close_frame().await.code), 4200);
        let (status, text) = stopped.await.unwrap();
        assert!(status.success(), "{signal} {text}");
        assert!(text.contains("streams asked to reconnect: 2"), "{text}");
    }
}

#[tokio::test]
async fn with_a_log_in_json_every_line_is_json() {
    let home = Home::with(&["--log-format", "json", "--log", "info"]);
    let server = home.start().await;
    let (status, text) = server.stop("-TERM").await;
    assert!(status.success(), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    for says in ["stopping: ", "stopped: "] {
        let is_it = |line: &&Value| {
            let message = line["fields"]["message"].as_str();
            message.is_some_and(|message| message.starts_with(says))
        };
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string(), "{line}");
    }
}

/// A request whose body has not arrived, which a stop waits for.
async fn unfinished_request(server: &Server) -> TcpStream {
    let mut stream = connect(server).await;
    let head = "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Its head is read once a later connection has been served.
    server.notify("anna", json!(1)).await;
    stream
}

#[tokio::test]
async fn a_signal_that_comes_twice_at_once_is_one_request_to_stop() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = unfinished_request(&server).await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    server.signal("-TERM").await;
    server.signal("-INT").await;
    events.until("tidings.bye").await;
    stream
        .write_all(br#""user_id":"a","payload":1}"#)
        .await
        .unwrap();
    let mut reply = String::new();
    soon("the response", stream.read_to_string(&mut reply))
        .await
        .unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    let (status, text) = server.ended().await;
    assert!(status.success(), "{text}");
}

#[tokio::test]
async fn a_later_signal_stops_at_once() {
    let home = Home::new();
    let server = home.start().await;
    let _unfinished = unfinished_request(&server).await;
    let id = server.process_id();
    let stopped = tokio::spawn(server.stop("-TERM"));
    // Signals are ignored for a moment, and what is in progress lasts longer.
    while !stopped.is_finished() {
        let _gone = signal_process("-INT", id).await;
    }
    let (status, text) = stopped.await.unwrap();
    assert!(!status.success(), "{text}");
    assert!(text.contains("stopped at once"), "{text}");
}

#[tokio::test]
async fn a_reader_continues_exactly_over_a_restart() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let mut events = server.events("anna", "?since=start").await;
    let (first, _) = events.until("tidings.caught_up").await;
    server.notify("anna", json!(2)).await;
    let cursor = first[0]["id"].as_str().unwrap();
    server.stop("-TERM").await;
    let server = home.start().await;
    // Before anything new is stored: the log and its numbering are on disk.
    let mut events = server.events_after("anna", "", Some(cursor)).await;
    let (rest, _) = events.until("tidings.caught_up").await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0]["payload"], 2);
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let home = Home::new();
    let _first = home.start().await;
    let (started, _, text) = said_by(&mut home.command()).await;
    assert!(!started);
    assert!(text.contains("in use by another process"), "{text}");
}

#[tokio::test]
async fn regression_a_reader_in_the_middle_of_a_backlog_gets_its_farewell_soon() {
    let home = Home::new();
    let server = home.start().await;
    server.notify_many("anna", 300, 64 << 10).await;
    let mut reader = unread_events(&server, "/v1/users/anna/events?since=start").await;
    is_full(&reader).await;
    let stopped = tokio::spawn(server.stop("-TERM"));
    let mut text = Vec::new();
    let whole = tokio::time::timeout(Duration::from_secs(15), reader.read_to_end(&mut text));
    whole.await.expect("the stream ends soon").unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("event: tidings.bye"), "no farewell");
    let (status, log) = stopped.await.unwrap();
    assert!(status.success(), "{log}");
    assert!(log.contains("connections dropped: 0"), "{log}");
}

#[tokio::test]
async fn readers_that_read_nothing_hold_up_no_stop() {
    let home = Home::new();
    let server = home.start().await;
    server.notify_many("anna", 100, 64 << 10).await;
    let events = unread_events(&server, "/v1/users/anna/events?since=start").await;
    let socket = RawSocket::open(&server, "/v1/users/anna/ws?since=start").await;
    is_full(&events).await;
    is_full(&socket.0).await;
    let stopped = tokio::time::timeout(Duration::from_secs(15), server.stop("-TERM"));
    let (status, log) = stopped.await.expect("the server stops before its deadline");
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn regression_a_server_whose_log_has_no_reader_any_more_continues() {
    let home = Home::with(&["--log", "info"]);
    let mut command = home.command();
    let (reader, log) = std::io::pipe().unwrap();
    command.stderr(log);
    let server = Server::of(command).await;
    drop(reader);
    for n in 0..3 {
        server.notify("anna", json!(n)).await;
    }
    let mut events = server.events("anna", "?since=start").await;
    events.until("tidings.caught_up").await;
    let stopping = server.stop_unread("-TERM");
    let (status, _) = tokio::join!(stopping, events.until("tidings.bye"));
    assert!(status.success(), "{status}");
}
