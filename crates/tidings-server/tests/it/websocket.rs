//! The same stream as JSON text frames on a WebSocket.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::raw::{Frame, RawSocket, masked};
use crate::support::{Home, Server, soon};

/// A client's end of a socket.
pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn open(server: &Server, path: &str) -> Self {
        let url = server.at(path).replacen("http", "ws", 1);
        let (socket, _) = connect_async(url).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match soon("the next frame", self.0.next())
                .await
                .unwrap()
                .unwrap()
            {
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                Message::Ping(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Reads up to and including the frame of this event.
    pub(crate) async fn until(&mut self, event: &str) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["event"] == event {
                return (before, frame);
            }
            before.push(frame);
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The close, before which nothing else may come.
    pub(crate) async fn close_frame_only(&mut self) -> CloseFrame {
        let message = soon("the close", self.0.next()).await.unwrap().unwrap();
        let Message::Close(frame) = message else {
            panic!("{message:?} came before the close")
        };
        frame.unwrap()
    }

    pub(crate) async fn close_frame(&mut self) -> CloseFrame {
        loop {
            let message = soon("the close", self.0.next()).await.unwrap().unwrap();
            if let Message::Close(frame) = message {
                return frame.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn the_backlog_comes_first_then_caught_up_then_live() {
    let home = Home::new();
    let server = home.start().await;
    for n in 1..=3 {
        server.notify("anna", json!(n)).await;
    }
    let mut socket = Socket::open(&server, "/v1/users/anna/ws?since=start").await;
    let hello = socket.next().await;
    assert_eq!(hello["event"], "hello");
    assert_eq!(hello["unread"], 3);
    let (backlog, caught_up) = socket.until("caught_up").await;
    let numbers: Vec<_> = backlog
        .iter()
        .map(|frame| frame["data"]["payload"].clone())
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(caught_up["cursor"], backlog[2]["data"]["id"]);
    server.notify("anna", json!("live")).await;
    let live = socket.next().await;
    assert_eq!(live["event"], "notification");
    assert_eq!(live["data"]["payload"], "live");

    let cursor = backlog[1]["data"]["id"].as_str().unwrap();
    let path = format!("/v1/users/anna/ws?last_event_id={cursor}");
    let mut resumed = Socket::open(&server, &path).await;
    resumed.next().await;
    assert_eq!(resumed.next().await["data"]["payload"], 3);
    assert_eq!(resumed.next().await["data"]["payload"], "live");
}

#[tokio::test]
async fn a_garbage_cursor_gets_a_gap_frame() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws?last_event_id=garbage").await;
    socket.next().await;
    let gap = socket.next().await;
    assert_eq!(gap["event"], "gap");
    assert!(gap["reason"].is_string());
    assert!(gap.get("from").is_some() && gap.get("to").is_some());
    assert_eq!(socket.next().await["data"]["payload"], 1);
}

#[tokio::test]
async fn a_client_can_mark_as_read_and_wrong_frames_get_an_error() {
    let home = Home::new();
    let server = home.start().await;
    let id = server.notify("anna", json!(1)).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    let mut other = Socket::open(&server, "/v1/users/anna/ws").await;
    for socket in [&mut socket, &mut other] {
        socket.until("caught_up").await;
    }
    let (epoch, _) = id.split_once('-').unwrap();
    let request =
        r#"expected {"ack":"<id>"}, {"read":"<id>"}, {"seen":"<id>"} or {"archive":"<id>"}"#;
    let an_id = "expected the id of a notification";
    let (ahead, foreign) = (format!("{epoch}-99"), "00000000000000ff-1");
    let given = "expected the id of a notification that this stream has sent, or of an earlier one";
    for (text, code, field, says) in [
        (String::new(), "invalid_frame", "", request),
        ("nonsense".to_owned(), "invalid_frame", "", request),
        ("{}".to_owned(), "invalid_frame", "", request),
        ("[]".to_owned(), "invalid_frame", "", request),
        (r#"{"delete":"x"}"#.to_owned(), "invalid_frame", "", request),
        (
            r#"{"read":"x","ack":"x"}"#.to_owned(),
            "invalid_frame",
            "",
            request,
        ),
        (
            r#"{"read":"x","foo":1}"#.to_owned(),
            "invalid_frame",
            "foo",
            "unknown field; expected one field",
        ),
        (
            r#"{"read":"x","read":"x"}"#.to_owned(),
            "invalid_frame",
            "read",
            "given more than once",
        ),
        (r#"{"read":5}"#.to_owned(), "invalid_frame", "read", an_id),
        (
            r#"{"read":"zz"}"#.to_owned(),
            "invalid_frame",
            "read",
            an_id,
        ),
        (r#"{"ack":"zz"}"#.to_owned(), "invalid_frame", "ack", an_id),
        (
            json!({ "ack": ahead }).to_string(),
            "invalid_frame",
            "ack",
            given,
        ),
        (
            json!({ "ack": foreign }).to_string(),
            "invalid_frame",
            "ack",
            given,
        ),
        (
            json!({ "read": ahead }).to_string(),
            "not_found",
            "id",
            "this user has no such notification",
        ),
    ] {
        socket.send(&text).await;
        let error = socket.next().await;
        assert_eq!(error["event"], "error", "{text}");
        assert_eq!(error["code"], code, "{text}");
        assert_eq!(error["message"], says, "{text}");
        assert_eq!(error["field"].as_str().unwrap_or_default(), field, "{text}");
    }
    socket.send(&json!({ "ack": id }).to_string()).await;
    socket.send(&json!({ "read": id }).to_string()).await;
    for socket in [&mut socket, &mut other] {
        let (_, read) = socket.until("changed").await;
        assert_eq!(read["ids"], json!([id]));
        assert_eq!(read["unread"], 0);
    }
}

#[tokio::test]
async fn a_client_says_what_was_seen_and_archives() {
    let home = Home::new();
    let server = home.start().await;
    let id = server.notify("anna", json!(1)).await["id"].clone();
    let of_ben = server.notify("ben", json!(1)).await["id"].clone();
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    let mut other = Socket::open(&server, "/v1/users/anna/ws").await;
    let hello = other.next().await;
    assert_eq!((&hello["unread"], &hello["unseen"]), (&json!(1), &json!(1)));
    for socket in [&mut socket, &mut other] {
        socket.until("caught_up").await;
    }
    for (request, change, left) in [("seen", "seen", (1, 0)), ("archive", "archived", (0, 0))] {
        socket.send(&json!({ request: of_ben }).to_string()).await;
        assert_eq!(socket.next().await["code"], "not_found", "{request}");
        socket.send(&json!({ request: id }).to_string()).await;
        for socket in [&mut socket, &mut other] {
            let (_, frame) = socket.until("changed").await;
            assert_eq!(frame["change"], change);
            assert_eq!(
                (&frame["unread"], &frame["unseen"]),
                (&json!(left.0), &json!(left.1))
            );
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_only_its_own_socket() {
    let home = Home::new();
    let server = home.start().await;
    let mut loud = Socket::open(&server, "/v1/users/anna/ws").await;
    let mut quiet = Socket::open(&server, "/v1/users/anna/ws").await;
    quiet.until("caught_up").await;
    loud.send(&"x".repeat(100_000)).await;
    server.notify("anna", json!("still here")).await;
    assert_eq!(quiet.next().await["data"]["payload"], "still here");
}

#[tokio::test]
async fn a_close_frame_gets_a_close_frame() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    socket.0.close(None).await.unwrap();
    let reply = soon("the reply to the close", socket.0.next()).await;
    assert!(matches!(reply, Some(Ok(Message::Close(_)))), "{reply:?}");
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_gets_the_reason() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    socket.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(socket.next().await["code"], "invalid_frame");
    socket.send(&"x".repeat(5000)).await;
    assert_eq!(u16::from(socket.close_frame().await.code), 1009);
}

#[tokio::test]
async fn what_cannot_be_marked_as_read_gets_an_error() {
    let home = Home::new();
    let server = home.start().await;
    let of_ben = server.notify("ben", json!(1)).await["id"].clone();
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    socket.send(&json!({ "read": of_ben }).to_string()).await;
    let error = socket.next().await;
    assert_eq!(
        (&error["event"], &error["code"]),
        (&json!("error"), &json!("not_found"))
    );
}

#[tokio::test]
async fn a_violation_of_the_protocol_is_closed_with_its_code() {
    let home = Home::new();
    let server = home.start().await;
    let mut unmasked = masked(0x81, b"x");
    unmasked[1] &= 0x7f;
    for (what, frame, code) in [
        ("invalid UTF-8", masked(0x81, b"\xc3\x28"), 1007),
        ("an unmasked frame", unmasked, 1002),
        ("a reserved bit", masked(0xc1, b"x"), 1002),
        ("a stray continuation", masked(0x80, b"x"), 1002),
        (
            "a frame that is too large",
            masked(0x81, &[b'x'; 5000]),
            1009,
        ),
    ] {
        let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
        socket.until("caught_up").await;
        socket.0.write_all(&frame).await.unwrap();
        assert_eq!(socket.close_code().await, code, "{what}");
    }
}

/// Otherwise the operating system would reset the connection, and the close could be lost.
#[tokio::test]
async fn regression_the_connection_ends_in_order_while_a_frame_that_is_too_large_arrives() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    let mut begin = vec![0x81, 0xff];
    begin.extend((1_u64 << 20).to_be_bytes());
    begin.extend([0; 4]);
    begin.extend(vec![b'x'; 64 << 10]);
    socket.0.write_all(&begin).await.unwrap();
    assert_eq!(socket.close_code().await, 1009);
    let end = soon("the end", socket.0.read(&mut [0])).await;
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn the_subprotocol_is_confirmed_to_clients_that_offer_it() {
    let home = Home::new();
    let server = home.start().await;
    let url = server.at("/v1/users/anna/ws").replacen("http", "ws", 1);
    for (offered, confirmed) in [
        (None, None),
        (Some("tidings.v1"), Some("tidings.v1")),
        (Some("other, tidings.v1"), Some("tidings.v1")),
    ] {
        let mut request = url.as_str().into_client_request().unwrap();
        if let Some(offered) = offered {
            let offered = offered.parse().unwrap();
            request
                .headers_mut()
                .insert("sec-websocket-protocol", offered);
        }
        let (_socket, response) = connect_async(request).await.unwrap();
        let reply = response.headers().get("sec-websocket-protocol");
        assert_eq!(reply.map(|reply| reply.to_str().unwrap()), confirmed);
    }
}

/// The payload of the next event.
async fn next_payload(socket: &mut RawSocket) -> Value {
    loop {
        match socket.next().await {
            Some(Frame::Text(mut frame)) if frame["event"] == "notification" => {
                return frame["data"]["payload"].take();
            }
            Some(Frame::Text(frame)) if frame["event"] == "error" => return frame,
            Some(_) => {}
            None => panic!("the socket ended"),
        }
    }
}

/// A socket that waits is served elsewhere than one that has sent something: an event must arrive in each state, and
/// no byte of a client may be lost between them.
#[tokio::test]
async fn a_frame_that_comes_in_pieces_is_read_whole_and_events_go_on_in_between() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
    let mut number = 0;
    // A text that is no request, so that there is a reply to it.
    let whole = masked(0x81, b"whole");
    let pong = masked(0x8a, b"");
    let fragments = [masked(0x01, b"in "), masked(0x80, b"parts")].concat();
    let two = [masked(0x81, b"one"), masked(0x81, b"two")].concat();
    for (bytes, replies) in [
        (&whole, 1),
        (&pong, 0),
        (&fragments, 1),
        (&two, 2),
        (&whole, 1),
    ] {
        for cut in 0..bytes.len() {
            let (first, rest) = bytes.split_at(cut);
            socket.0.write_all(first).await.unwrap();
            number += 1;
            server.notify("anna", json!(number)).await;
            let mut seen = 0;
            while next_payload(&mut socket).await != number {
                seen += 1;
            }
            socket.0.write_all(rest).await.unwrap();
            while seen < replies {
                let reply = next_payload(&mut socket).await;
                assert_eq!(reply["event"], "error", "{reply}");
                seen += 1;
            }
            number += 1;
            server.notify("anna", json!(number)).await;
            assert_eq!(next_payload(&mut socket).await, number, "{bytes:?} {cut}");
        }
    }
}

#[tokio::test]
async fn a_client_that_replies_to_a_ping_and_ends_is_gone_at_once() {
    let home = Home::new();
    let server = home.start().await;
    for _ in 0..20 {
        let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
        while !matches!(socket.next().await, Some(Frame::Text(frame)) if frame["event"] == "caught_up")
        {
        }
        // Both have arrived when the server looks.
        socket.0.write_all(&masked(0x8a, b"")).await.unwrap();
        socket.0.shutdown().await.unwrap();
        while socket.next().await.is_some() {}
    }
}

#[tokio::test]
async fn an_upgrade_that_announces_a_body_becomes_a_socket() {
    let home = Home::new();
    let server = home.start().await;
    let path = "/v1/users/anna/ws HTTP/1.1\r\nContent-Length: 0005\r\nX-Rest:";
    let mut socket = RawSocket::open(&server, path).await;
    while !matches!(socket.next().await, Some(Frame::Text(frame)) if frame["event"] == "caught_up")
    {
    }
    server.notify("anna", json!(1)).await;
    assert_eq!(next_payload(&mut socket).await, 1);
}
