//! The good receiver: replies, in whatever order and at whatever time a test wants them.

use std::time::Duration;

use http::StatusCode;
use tidings_test_support::{Behaviour, Gate, Receiver, Reply, Script};
use tokio::time::Instant;

use crate::client::{HELLO, connect, hello};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn requests_of_one_connection_get_their_replies_in_turn() {
    let (receiver, mut client) = hello(Reply::ok()).await;
    client.expect(OK).await;
    client
        .send("PUT /other?q HTTP/1.1\r\nx-id: 7\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        .await;
    client.expect(OK).await;

    let first = receiver.request(1).await;
    assert_eq!(first.head.method, http::Method::POST);
    assert_eq!(first.body, "hello");
    let second = receiver.request(2).await;
    assert_eq!(second.head.target, "/other?q");
    assert_eq!(second.head.path(), "/other");
    assert_eq!(second.header("X-Id"), Some("7"));
    assert_eq!(second.body, "ab");
    assert_eq!(second.head.connection, 1);
    assert!(second.received_at >= first.received_at);
    assert_eq!((receiver.requests().len(), receiver.connections()), (2, 1));
}

#[tokio::test]
async fn requests_sent_at_once_all_get_replies() {
    let (receiver, mut client) = hello(Reply::ok()).await;
    client.send(&HELLO.repeat(3)).await;
    client.expect(&OK.repeat(4)).await;
    assert_eq!(receiver.requests().len(), 4);
}

#[tokio::test]
async fn a_sequence_ends_with_what_stays() {
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let (_receiver, mut client) = hello(Script::sequence([busy, Reply::gone()], Reply::ok())).await;
    client.send(&HELLO.repeat(3)).await;
    client
        .expect("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        .await;
    client
        .expect("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")
        .await;
    client.expect(&OK.repeat(2)).await;
}

#[tokio::test]
async fn a_function_decides_by_the_head() {
    let script = Script::by(|head| match head.path() {
        "/hook" => Reply::redirect(StatusCode::FOUND, "/there").into(),
        _ => Behaviour::HangUp,
    });
    let (_receiver, mut client) = hello(script).await;
    client
        .expect("HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n")
        .await;
    client.send(&HELLO.replace("/hook", "/else")).await;
    client.expect_last("").await;
}

#[tokio::test]
async fn replies_can_be_switched_while_it_runs() {
    let (receiver, mut client) = hello(Reply::ok()).await;
    client.expect(OK).await;
    receiver.switch_to(Reply::retry_after("120"));
    client.send(HELLO).await;
    client
        .expect("HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n")
        .await;
}

#[tokio::test]
async fn a_gate_holds_replies_back_until_it_opens_for_good() {
    let gate = Gate::new();
    let (receiver, mut client) = hello(Reply::ok().after(gate.clone())).await;
    receiver.request(1).await;
    let mut other = connect(&receiver).await;
    other.send(HELLO).await;
    receiver.request(2).await;
    drop(other);
    assert_eq!(receiver.closed(1).await.bytes_sent, 0);

    gate.open();
    client.expect(OK).await;
    client.send(HELLO).await;
    client.expect(OK).await;
}

#[tokio::test]
async fn a_delay_passes_before_the_reply() {
    let delay = Duration::from_millis(50);
    let started = Instant::now();
    let (_receiver, mut client) = hello(Reply::ok().with_delay(delay)).await;
    client.expect(OK).await;
    assert!(started.elapsed() >= delay);
}

#[tokio::test]
async fn a_connection_can_close_with_and_without_notice() {
    let (_receiver, mut client) = hello(Reply::ok().with_close()).await;
    client
        .expect_last("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await;
    let (receiver, mut client) = hello(Reply::ok().with_silent_close()).await;
    client.expect_last(OK).await;
    assert_eq!(receiver.closed(1).await.requests, 1);
}

#[tokio::test]
async fn a_client_that_expects_continue_gets_it() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let mut client = connect(&receiver).await;
    client
        .send("POST / HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("hello").await;
    client.expect(OK).await;
    assert_eq!(receiver.request(1).await.body, "hello");
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_does_not_count() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let mut client = connect(&receiver).await;
    client.send("SSH-2.0-OpenSSH\r\n").await;
    let (reply, _) = client.rest().await;
    assert!(reply.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert!(reply.ends_with(b"expected an HTTP/1.1 request\n"));
    assert_eq!(receiver.closed(1).await.requests, 0);
    assert!(receiver.requests().is_empty());
}
