//! Stopping loses nothing, and says what was left.

use serde_json::json;

use crate::support::Home;
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
        assert!(text.contains("streams told to reconnect: 2"), "{text}");
    }
}

#[tokio::test]
async fn a_reader_goes_on_exactly_over_a_restart() {
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
    let second = home.command().output().await.unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("in use by another process"), "{text}");
}
