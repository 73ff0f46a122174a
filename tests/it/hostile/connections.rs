//! Receivers that break off, close, and close without a word.

use tidings::{Endpoint, ErrorKind, Message, Verdict};
use tidings_test_support::{Behaviour, Gate, Reply, Script, Unreachable};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn a_port_without_a_listener_is_refused_and_nothing_left() {
    let unreachable = Unreachable::refusing().unwrap();
    let attempt = attempt(&unreachable.url("/")).await;
    assert_nothing_left(&attempt, ErrorKind::Refused);
}

#[tokio::test]
async fn a_reset_after_the_body_is_ambiguous_and_one_attempt_is_one_request() {
    let receiver = receiver(Behaviour::ResetAfterBody).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_ambiguous(&attempt, ErrorKind::Reset);
    assert_eq!(
        receiver.request(1).await.header("webhook-id"),
        Some("msg_hello")
    );
    receiver.closed(1).await;
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 1));
}

#[tokio::test]
async fn the_repetition_of_an_ambiguous_attempt_has_the_same_id() {
    let receiver = receiver(Script::sequence([Behaviour::ResetAfterBody], Reply::ok())).await;
    let endpoint = Endpoint::builder(receiver.url("/"))
        .secret(tidings::signing::Secret::generate())
        .build()
        .unwrap();
    let (sender, message) = (sender(), Message::from("hello"));
    assert_ambiguous(
        &sender.attempt(&endpoint, &message, 1).await,
        ErrorKind::Reset,
    );
    let second = sender.attempt(&endpoint, &message, 2).await;
    assert_eq!(second.verdict(), Verdict::Delivered);
    for number in [1, 2] {
        let request = receiver.request(number).await;
        assert_eq!(request.header("webhook-id"), Some(message.id()));
        assert_eq!(request.body, "hello");
    }
}

#[tokio::test]
async fn a_reset_before_the_body_is_retryable_and_one_attempt_is_one_request() {
    let receiver = receiver(Behaviour::ResetBeforeBody).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Reset));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    receiver.closed(1).await;
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_end_without_a_reply_is_ambiguous_wherever_it_comes() {
    for behaviour in [Behaviour::HangUp, Behaviour::HalfHead] {
        let receiver = receiver(behaviour).await;
        let attempt = attempt(&receiver.url("/")).await;
        assert_ambiguous(&attempt, ErrorKind::Reset);
        receiver.closed(1).await;
        assert_eq!((receiver.connections(), receiver.requests().len()), (1, 1));
    }
}

#[tokio::test]
async fn another_protocol_is_distinguished_from_http() {
    for greeting in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "220 mail ESMTP\r\n",
        "\x16\x03\x01\0\0\r\n",
    ] {
        let receiver = receiver(Behaviour::Raw(greeting.into())).await;
        assert_ambiguous(&attempt(&receiver.url("/")).await, ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn a_connection_is_used_again_while_it_lasts() {
    let receiver = receiver(Reply::ok()).await;
    let sender = sender();
    for _ in 0..5 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn connections_that_fall_idle_at_once_are_all_used_again() {
    let gate = Gate::new();
    let receiver = receiver(Reply::ok().after(gate.clone())).await;
    let (sender, url) = (sender(), receiver.url("/"));
    let attempts = || {
        let mut attempts = JoinSet::new();
        for _ in 0..100 {
            let (sender, endpoint) = (sender.clone(), Endpoint::builder(&url).timeout(PATIENT));
            attempts.spawn(async move { attempt_by(&sender, endpoint).await });
        }
        attempts.join_all()
    };
    // No request gets a response before all have arrived: that takes a connection for each.
    tokio::join!(attempts(), async {
        receiver.request(100).await;
        gate.open();
    });
    assert_eq!(receiver.connections(), 100);
    for attempt in attempts().await {
        assert_eq!(attempt.verdict(), Verdict::Delivered);
    }
    assert_eq!(receiver.connections(), 100);
}

#[tokio::test]
async fn a_connection_that_was_said_to_close_is_not_used_again() {
    let receiver = receiver(Reply::ok().with_close()).await;
    let sender = sender();
    for connections in 1..4 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
        assert_eq!(receiver.connections(), connections);
    }
}

#[tokio::test]
async fn a_stale_connection_of_the_pool_costs_no_attempt() {
    let receiver = receiver(Reply::ok().with_silent_close()).await;
    let sender = sender();
    for connection in 0..5 {
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
        receiver.closed(connection * 2 + 1).await;
        // The end of the connection has reached the kernel. Any other event that passes through
        // the runtime's reactor after it makes sure that it has reached the pool too.
        drop(TcpStream::connect(receiver.address()).await.unwrap());
        receiver.closed(connection * 2 + 2).await;
    }
    assert_eq!(receiver.requests().len(), 5);
}

/// How a receiver ends a kept connection once it has read a request: by closing it, as one does
/// whose idle timeout comes at that moment, or by a reset.
const ENDS: [Behaviour; 2] = [Behaviour::HangUp, Behaviour::ResetAfterBody];

#[tokio::test]
async fn regression_a_kept_connection_that_ends_is_followed_by_a_new_one_within_the_attempt() {
    for end in ENDS {
        let script = Script::sequence([Reply::ok().into(), end], Reply::ok());
        let receiver = receiver(script).await;
        let sender = sender();
        let attempt = || attempt_by(&sender, Endpoint::builder(receiver.url("/")));
        assert_eq!(attempt().await.verdict(), Verdict::Delivered);
        let second = attempt().await;
        if IS_BUILT_IN {
            assert_eq!(second.verdict(), Verdict::Delivered, "{second:?}");
            assert!(!second.is_ambiguous());
            assert_eq!((receiver.connections(), receiver.requests().len()), (2, 3));
        } else {
            assert_ambiguous(&second, ErrorKind::Reset);
            assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
        }
        let ids: Vec<_> = (receiver.requests().iter())
            .map(|request| request.header("webhook-id").unwrap().to_owned())
            .collect();
        assert!(ids.iter().all(|id| id == "msg_hello"), "{ids:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_twice_at_most_and_only_from_a_kept_connection() {
    for end in ENDS {
        let script = Script::sequence([Reply::ok().into(), end.clone(), end], Reply::ok());
        let receiver = receiver(script).await;
        let sender = sender();
        let attempt = || attempt_by(&sender, Endpoint::builder(receiver.url("/")));
        assert_eq!(attempt().await.verdict(), Verdict::Delivered);
        assert_ambiguous(&attempt().await, ErrorKind::Reset);
        let requests = if IS_BUILT_IN { 3 } else { 2 };
        assert_eq!(receiver.requests().len(), requests);
    }
}

#[tokio::test]
async fn a_response_that_began_is_not_asked_for_again() {
    let script = Script::sequence([Reply::ok().into(), Behaviour::HalfHead], Reply::ok());
    let receiver = receiver(script).await;
    let sender = sender();
    let attempt = || attempt_by(&sender, Endpoint::builder(receiver.url("/")));
    assert_eq!(attempt().await.verdict(), Verdict::Delivered);
    assert_ambiguous(&attempt().await, ErrorKind::Reset);
    receiver.closed(1).await;
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
}

#[tokio::test]
async fn an_attempt_that_is_dropped_lets_go_of_its_connection() {
    let receiver = receiver(Behaviour::NeverReply).await;
    let url = receiver.url("/");
    tokio::select! {
        attempt = attempt(&url) => panic!("{attempt:?}"),
        _ = receiver.request(1) => {}
    }
    assert_eq!(receiver.closed(1).await.bytes_sent, 0);
}
