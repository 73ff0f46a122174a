//! Receivers that reply with more than was asked for.

use bytes::Bytes;
use http::StatusCode;
use tidings::{ErrorKind, MAX_RESPONSE_BYTES, Verdict};
use tidings_test_support::{Behaviour, Reply};

use super::*;

/// What the kernel buffers between two sockets, generously.
const IN_FLIGHT: u64 = 64 * 1024 * 1024;

#[tokio::test]
async fn of_an_endless_body_the_head_is_kept_and_the_connection_is_left() {
    let receiver = receiver(Behaviour::EndlessBody).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    let body = attempt.result.unwrap().body_head;
    assert_eq!(body, Bytes::from(vec![b'x'; MAX_RESPONSE_BYTES]));
    assert!(receiver.closed(1).await.bytes_sent < IN_FLIGHT);
}

#[tokio::test]
async fn a_huge_body_is_not_drained() {
    let bytes = 1_000_000_000_000;
    let receiver = receiver(Behaviour::HugeBody { bytes }).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(attempt.result.unwrap().body_head.len(), MAX_RESPONSE_BYTES);
    assert!(receiver.closed(1).await.bytes_sent < IN_FLIGHT);
}

#[tokio::test]
async fn a_gzip_bomb_is_neither_asked_for_nor_decoded() {
    let receiver = receiver(Behaviour::GzipBomb).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    let body = attempt.result.unwrap().body_head;
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() <= MAX_RESPONSE_BYTES);
    assert_eq!(receiver.request(1).await.header("accept-encoding"), None);
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let receiver = receiver(Behaviour::HalfBody).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(attempt.result.unwrap().body_head, "hello");
}

#[tokio::test]
async fn a_body_whose_length_is_a_lie_changes_nothing() {
    let reply = Reply::ok()
        .with_header("content-length", u64::MAX.to_string())
        .with_body("short")
        .with_close();
    let attempt = attempt(&receiver(reply).await.url("/")).await;
    // Some lengths are no HTTP any more: both are bounded, neither is a panic.
    match &attempt.result {
        Ok(reply) => assert_eq!(reply.body_head, "short"),
        Err(_) => assert_ambiguous(&attempt, ErrorKind::Protocol),
    }
}

#[tokio::test]
async fn endless_headers_end_the_attempt_within_bounds() {
    let receiver = receiver(Behaviour::EndlessHeaders).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_ambiguous(&attempt, ErrorKind::Protocol);
    assert!(receiver.closed(1).await.bytes_sent < IN_FLIGHT);
}

#[tokio::test]
async fn a_huge_header_ends_the_attempt_within_bounds() {
    let bytes = 1_000_000_000_000;
    let receiver = receiver(Behaviour::HugeHeader { bytes }).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_ambiguous(&attempt, ErrorKind::Protocol);
    assert!(receiver.closed(1).await.bytes_sent < IN_FLIGHT);
}

#[tokio::test]
async fn a_header_that_is_only_long_is_taken() {
    let receiver = receiver(Behaviour::HugeHeader { bytes: 32 * 1024 }).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
}

#[tokio::test]
async fn a_message_of_any_size_goes_out_whole() {
    let receiver = receiver(Reply::ok()).await;
    let body = Bytes::from(vec![b'm'; 8 * 1024 * 1024]);
    let endpoint = Endpoint::builder(receiver.url("/")).timeout(PATIENT);
    let endpoint = endpoint.build().unwrap();
    let message = Message::new(body.clone());
    let attempt = sender().attempt(&endpoint, &message, 1).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    assert!(receiver.request(1).await.body == body);
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    let behaviour = Behaviour::Interim {
        status: StatusCode::PROCESSING,
        count: 100,
        then: Reply::new(StatusCode::ACCEPTED),
    };
    let attempt = attempt(&receiver(behaviour).await.url("/")).await;
    assert_eq!(attempt.status(), Some(StatusCode::ACCEPTED));
}

#[tokio::test]
async fn endless_interim_responses_end_the_attempt_within_bounds() {
    let receiver = receiver(Behaviour::Interim {
        status: StatusCode::EARLY_HINTS,
        count: u64::MAX,
        then: Reply::ok(),
    })
    .await;
    if IS_BUILT_IN {
        let attempt = attempt(&receiver.url("/")).await;
        assert_ambiguous(&attempt, ErrorKind::Protocol);
        assert!(causes(&attempt).contains("bytes"), "{}", causes(&attempt));
        assert!(receiver.closed(1).await.bytes_sent < IN_FLIGHT);
    } else {
        // The deadline is the bound.
        let attempt = hasty_attempt(&receiver.url("/")).await;
        assert_ambiguous(&attempt, ErrorKind::ResponseTimeout);
        receiver.closed(1).await;
    }
}
