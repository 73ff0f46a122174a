//! What counts as sent, and so does not come again with `since=undelivered`.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::raw::{is_full, read_what_is_there, unread_events};
use crate::support::{Home, Server, http, payloads, soon};
use crate::websocket::Socket;

async fn undelivered(server: &Server) -> Vec<Value> {
    let mut events = server.events("anna", "?since=undelivered").await;
    let (events, _) = events.until("tidings.caught_up").await;
    payloads(&events)
}

async fn receive(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let (_, frame) = socket.until("notification").await;
        ids.push(frame["data"]["id"].clone());
    }
    ids
}

/// Acknowledges, and waits until the server has handled it: requests are handled in order.
async fn acknowledge(socket: &mut Socket, id: &Value) {
    socket.send(&json!({ "ack": id }).to_string()).await;
    socket.send("{}").await;
    socket.until("error").await;
}

#[tokio::test]
async fn regression_only_what_was_written_counts_as_sent() {
    let home = Home::new();
    let server = home.start().await;
    server.notify_many("anna", 400, 20_000).await;
    let mut reader = unread_events(&server, "/v1/users/anna/events?since=start").await;
    is_full(&reader).await;
    // What the operating system has taken over still arrives, and is all that was written.
    server.signal("-STOP").await;
    let written = read_what_is_there(&mut reader).await;
    // By a reset: after an ordinary end the operating system would take over another write.
    reader.set_zero_linger().unwrap();
    drop(reader);
    server.signal("-CONT").await;
    let text = String::from_utf8_lossy(&written);
    let whole = text.matches("\ndata: {\"id\"").count() as u64;
    assert!((10..400).contains(&whole), "{whole}");
    let rest = undelivered(&server).await;
    let first = rest[0][0].as_u64().unwrap();
    // The last one counted may have been cut.
    assert!(
        first <= whole,
        "{first} events count as sent, {whole} were written"
    );
    assert!(first > 0, "nothing counts as sent");
}

#[tokio::test]
async fn what_an_idle_reader_was_sent_counts_at_once() {
    let home = Home::new();
    let server = home.start().await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    server.notify("anna", json!(1)).await;
    events.next().await;
    // The reader stays.
    assert_eq!(undelivered(&server).await, Vec::<Value>::new());
    // What it was sent last counts also when it leaves at once.
    server.notify("anna", json!(2)).await;
    events.next().await;
    drop(events);
    assert_eq!(undelivered(&server).await, Vec::<Value>::new());
}

#[tokio::test]
async fn regression_a_client_that_acknowledges_decides_what_counts_as_sent() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws?ack=true").await;
    socket.until("caught_up").await;
    for n in 1..=4 {
        server.notify("anna", json!(n)).await;
    }
    let ids = receive(&mut socket, 4).await;
    acknowledge(&mut socket, &ids[1]).await;
    drop(socket);
    assert_eq!(undelivered(&server).await, [3, 4]);
}

#[tokio::test]
async fn regression_the_first_acknowledgement_makes_the_later_ones_count() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    server.notify("anna", json!(1)).await;
    let ids = receive(&mut socket, 1).await;
    acknowledge(&mut socket, &ids[0]).await;
    for n in 2..=3 {
        server.notify("anna", json!(n)).await;
    }
    let ids = receive(&mut socket, 2).await;
    // Neither a repeat nor a future id moves anything.
    acknowledge(&mut socket, &json!("0000000000000001-9")).await;
    socket.until("error").await;
    assert_eq!(undelivered_now(&server).await, [2, 3]);
    acknowledge(&mut socket, &ids[1]).await;
    assert_eq!(undelivered_now(&server).await, Vec::<Value>::new());
}

/// What would be undelivered, looked at without receiving it.
async fn undelivered_now(server: &Server) -> Vec<Value> {
    let path = "/v1/users/anna/ws?ack=true&since=undelivered";
    let mut looking = Socket::open(server, path).await;
    let (frames, _) = looking.until("caught_up").await;
    let notifications = frames
        .iter()
        .filter(|frame| frame["event"] == "notification");
    notifications
        .map(|frame| frame["data"]["payload"].clone())
        .collect()
}

#[tokio::test]
async fn without_acknowledgements_what_was_written_counts() {
    let home = Home::new();
    let server = home.start().await;
    for path in [
        "/v1/users/anna/ws",
        "/v1/users/anna/ws?ack=false",
        "/ws/anna",
    ] {
        let mut socket = Socket::open(&server, path).await;
        server.notify("anna", json!(path)).await;
        loop {
            let frame = socket.next().await;
            if frame["event"] == "notification" || frame["message"].is_string() {
                break;
            }
            // A payload without a message, in the unversioned shape.
            if frame.get("event").is_none() {
                break;
            }
        }
        // It counts once it is written, which is after it can be read.
        soon(path, async {
            while !undelivered_now(&server).await.is_empty() {}
        })
        .await;
    }
    let refused = http()
        .get(server.at("/v1/users/anna/ws?ack=perhaps"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
}

/// A connection that never reads costs little, however long its backlog is.
#[tokio::test]
async fn readers_that_read_nothing_cost_little_memory() {
    const FIRST: usize = 40;
    let home = Home::with(&["--max-streams-per-user", "1000"]);
    let server = home.start().await;
    server.notify_many("anna", 200, 20_000).await;
    let mut readers = Vec::new();
    let mut memory_after_the_first = 0;
    for number in 1..=100 {
        let mut reader = unread_events(&server, "/v1/users/anna/events?since=start").await;
        // The stream has begun.
        reader.read_u8().await.unwrap();
        readers.push(reader);
        if number == FIRST {
            // What is kept once for all readers, such as recent events, is there from now on.
            is_full(&readers[0]).await;
            is_full(&readers[FIRST - 1]).await;
            memory_after_the_first = server.memory();
        }
    }
    is_full(&readers[99]).await;
    let more = readers.len() - FIRST;
    let each = server.memory().saturating_sub(memory_after_the_first) / more;
    assert!(each < 400 << 10, "{each} bytes for each reader");
}
