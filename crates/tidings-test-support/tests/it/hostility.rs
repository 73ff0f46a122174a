//! Each way to mistreat a request, as the sender sees it.

use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use http::StatusCode;
use tidings_test_support::{Behaviour, Receiver, Reply};

use crate::client::{HELLO, connect, hello};

#[tokio::test]
async fn never_reply_sends_nothing_until_the_sender_leaves() {
    let (receiver, client) = hello(Behaviour::NeverReply).await;
    assert_eq!(receiver.request(1).await.body, "hello");
    drop(client);
    let closed = receiver.closed(1).await;
    assert_eq!((closed.requests, closed.bytes_sent), (1, 0));
}

#[tokio::test]
async fn a_dripping_head_never_ends() {
    let pause = Duration::from_millis(1);
    let (receiver, mut client) = hello(Behaviour::DripHead { pause }).await;
    client.expect("HTTP/1.1 200 OK\r\nx-slow: ").await;
    client.expect("xxxxx").await;
    drop(client);
    receiver.closed(1).await;
}

#[tokio::test]
async fn a_dripping_body_follows_a_whole_head() {
    let pause = Duration::from_millis(1);
    let (receiver, mut client) = hello(Behaviour::DripBody { pause }).await;
    client
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    client.expect("xxxxx").await;
    drop(client);
    let sent = receiver.closed(1).await.bytes_sent;
    assert!(sent < 1_000_000, "{sent}");
}

#[tokio::test]
async fn an_endless_body_is_chunk_after_chunk() {
    let (receiver, mut client) = hello(Behaviour::EndlessBody).await;
    client
        .expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..1000 {
        client.expect(&chunk).await;
    }
    drop(client);
    assert!(receiver.closed(1).await.bytes_sent >= 4_096_000);
}

#[tokio::test]
async fn a_huge_body_is_as_long_as_it_says() {
    let bytes = 20_000_001;
    let (receiver, mut client) = hello(Behaviour::HugeBody { bytes }).await;
    client
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 20000001\r\n\r\n")
        .await;
    let (body, ended) = client.rest().await;
    ended.unwrap();
    assert_eq!(body.len() as u64, bytes);
    assert!(receiver.closed(1).await.bytes_sent > bytes);
}

#[tokio::test]
async fn a_sender_that_does_not_drain_a_huge_body_is_known_by_the_bytes_sent() {
    let bytes = 1_000_000_000;
    let (receiver, mut client) = hello(Behaviour::HugeBody { bytes }).await;
    client.expect("HTTP/1.1 200 OK\r\n").await;
    drop(client);
    let sent = receiver.closed(1).await.bytes_sent;
    // What the kernel buffers is a few MB.
    assert!(sent < bytes / 10, "{sent}");
}

#[tokio::test]
async fn a_gzip_bomb_grows_a_thousandfold() {
    let (_receiver, mut client) = hello(Behaviour::GzipBomb).await;
    let (reply, ended) = client.rest().await;
    ended.unwrap();
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = reply.split_at(end);
    let expected = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(String::from_utf8_lossy(head), expected);

    assert!(body.len() < 2 * 1024 * 1024);
    let claimed = u32::from_le_bytes(*body.last_chunk().unwrap());
    assert_eq!(claimed, 1024 * 1024 * 1024);
    // Decoding a part of it is proof enough, and takes less time.
    let part = &mut GzDecoder::new(body).take(u64::from(claimed) / 32);
    let decoded = std::io::copy(part, &mut std::io::sink()).unwrap();
    assert_eq!(decoded, u64::from(claimed) / 32);
}

#[tokio::test]
async fn endless_headers_have_no_empty_line() {
    let (receiver, mut client) = hello(Behaviour::EndlessHeaders).await;
    client.expect("HTTP/1.1 200 OK\r\n").await;
    let line = "x-more: and more, and more, and more\r\n";
    client.expect(&line.repeat(30_000)).await;
    drop(client);
    receiver.closed(1).await;
}

#[tokio::test]
async fn a_huge_header_is_one_line() {
    let (_receiver, mut client) = hello(Behaviour::HugeHeader { bytes: 1_000_000 }).await;
    let value = "x".repeat(1_000_000);
    client
        .expect_last(&format!(
            "HTTP/1.1 200 OK\r\nx-huge: {value}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
}

#[tokio::test]
async fn interim_responses_come_before_the_last() {
    let behaviour = Behaviour::Interim {
        status: StatusCode::PROCESSING,
        count: 1000,
        then: Reply::ok().with_close(),
    };
    let (_receiver, mut client) = hello(behaviour).await;
    client
        .expect(&"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000))
        .await;
    client
        .expect_last("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await;
}

#[tokio::test]
async fn a_reset_before_the_body_does_not_wait_for_it() {
    let receiver = Receiver::start(Behaviour::ResetBeforeBody).await.unwrap();
    let mut client = connect(&receiver).await;
    client
        .send("POST / HTTP/1.1\r\ncontent-length: 1000\r\n\r\n")
        .await;
    client.expect_reset().await;
    assert_eq!(receiver.request(1).await.body, "");
}

#[tokio::test]
async fn a_reset_after_the_body_has_read_it() {
    let (receiver, mut client) = hello(Behaviour::ResetAfterBody).await;
    client.expect_reset().await;
    assert_eq!(receiver.request(1).await.body, "hello");
}

#[tokio::test]
async fn hanging_up_is_an_end_in_good_order() {
    let (receiver, mut client) = hello(Behaviour::HangUp).await;
    client.expect_last("").await;
    assert_eq!(receiver.request(1).await.body, "hello");
}

#[tokio::test]
async fn half_a_reply_is_sent_and_then_nothing() {
    let (_receiver, mut client) = hello(Behaviour::HalfHead).await;
    client.expect_last("HTTP/1.1 20").await;
    let (_receiver, mut client) = hello(Behaviour::HalfBody).await;
    client
        .expect_last("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        .await;
}

#[tokio::test]
async fn raw_bytes_go_out_as_they_are() {
    let (_receiver, mut client) = hello(Behaviour::Raw("SSH-2.0-x\r\n".into())).await;
    client.expect_last("SSH-2.0-x\r\n").await;
}

#[tokio::test]
async fn a_request_that_breaks_off_is_not_recorded() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let mut client = connect(&receiver).await;
    client.send(&HELLO[..HELLO.len() - 1]).await;
    drop(client);
    assert_eq!(receiver.closed(1).await.requests, 1);
    assert!(receiver.requests().is_empty());
}
