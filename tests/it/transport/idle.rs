//! Connections that no request uses.

use std::io;

use tidings::MAX_RESPONSE_BYTES;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use tidings_test_support::{Script, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_were_allowed() {
    let mut receivers = Vec::new();
    for _ in 0..20 {
        receivers.push(receiver(Reply::ok()).await);
    }
    let sender = Sender::builder().max_idle_connections(8).build().unwrap();
    for receiver in &receivers {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
    }
    // Those that were used first have been closed.
    for receiver in &receivers[..12] {
        receiver.closed(1).await;
    }
    // The last one is used again.
    let last = receivers.last().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(last.url("/"))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(last.connections(), 1);
}

#[tokio::test]
async fn without_idle_connections_each_request_has_its_own() {
    let receiver = receiver(Reply::ok()).await;
    let builder = Sender::builder().max_idle_connections(0);
    let sender = builder.build().unwrap();
    for number in 1..4 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
        receiver.closed(number).await;
        assert_eq!(receiver.connections(), number);
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed() {
    let receiver = receiver(Reply::ok()).await;
    let builder = Sender::builder().idle_timeout(Duration::from_millis(50));
    let sender = builder.build().unwrap();
    for number in 1..3 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
        receiver.closed(number).await;
    }
}

#[tokio::test]
async fn a_connection_that_the_receiver_has_closed_is_closed_without_another_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (over, is_over) = oneshot::channel();
    let receiving = async {
        let (mut stream, _) = listener.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(b"hello") {
            stream.read_buf(&mut request).await?;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await?;
        is_over.await.map_err(io::Error::other)?;
        // The half of it: what the sender closes is read as the end of the stream.
        stream.shutdown().await?;
        stream.read_to_end(&mut request).await?;
        io::Result::Ok(())
    };
    let sender = Sender::builder().build().unwrap();
    let attempting = async {
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
        over.send(()).unwrap();
    };
    let (received, ()) = tokio::join!(receiving, attempting);
    received.unwrap();
}

#[test]
fn a_connection_of_a_runtime_that_has_ended_is_not_used_again() {
    let sender = Sender::builder().build().unwrap();
    let serving = Runtime::new().unwrap();
    let receiver = serving.block_on(receiver(Reply::ok()));
    for connections in 1..4 {
        let runtime = Runtime::new().unwrap();
        let attempt = runtime.block_on(attempt_by(&sender, Endpoint::builder(receiver.url("/"))));
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
        assert_eq!(receiver.connections(), connections);
    }
}

#[tokio::test]
async fn a_connection_whose_response_was_read_to_its_last_byte_is_used_again() {
    let body = vec![b'x'; MAX_RESPONSE_BYTES];
    for length in [0, body.len() - 1, body.len()] {
        let receiver = receiver(Reply::ok().with_body(body[..length].to_vec())).await;
        let sender = Sender::builder().build().unwrap();
        for _ in 0..3 {
            let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
            assert_eq!(attempt.result.unwrap().body_head.len(), length);
        }
        assert_eq!(receiver.connections(), 1, "{length}");
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[tokio::test]
async fn a_kept_connection_with_tls_that_ends_is_followed_by_a_new_one_within_the_attempt() {
    let script = Script::sequence([Reply::ok().into(), Behaviour::HangUp], Reply::ok());
    let builder = Receiver::builder(script).with_tls(Tls::Valid);
    let receiver = builder.start().await.unwrap();
    let sender = Sender::builder().root_certificates(receiver.authority().unwrap().pem());
    let sender = sender.build().unwrap();
    for _ in 0..2 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    }
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 3));
}
