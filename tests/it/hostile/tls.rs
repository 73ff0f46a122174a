//! Receivers that cannot prove who they are.

use tidings::{Endpoint, ErrorKind, Verdict};
use tidings_test_support::{Reply, Tls};

use super::trust::receiver_with;
use super::*;

/// The failed attempt at a receiver whose authority is trusted.
async fn refused(tls: Tls) -> String {
    let receiver = receiver_with(tls).await;
    let sender = trusting(receiver.authority().unwrap().pem())
        .build()
        .unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
    assert_nothing_left(&attempt, ErrorKind::Tls);
    let closed = receiver.closed(1).await;
    assert_eq!((closed.requests, closed.bytes_sent), (0, 0));
    assert_eq!(receiver.connections(), 1, "no second, weaker try");
    causes(&attempt)
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let receiver = receiver_with(Tls::Valid).await;
    let sender = trusting(receiver.authority().unwrap().pem())
        .build()
        .unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let url = receiver.url("/").replace("127.0.0.1", host);
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said_to_be_expired() {
    let causes = refused(Tls::Expired).await;
    assert!(causes.contains("xpired"), "{causes}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    refused(Tls::UnknownAuthority).await;
    // So is one of an authority that is not trusted.
    let receiver = receiver_with(Tls::Valid).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_nothing_left(&attempt, ErrorKind::Tls);
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_said_to_be_so() {
    let causes = refused(Tls::WrongName).await;
    assert!(
        causes.contains("wrong.invalid") || causes.contains("mismatch"),
        "{causes}"
    );
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_refused_and_gets_no_request() {
    let receiver = receiver(Reply::ok()).await;
    let attempt = attempt(&receiver.https_url("/")).await;
    assert_nothing_left(&attempt, ErrorKind::Tls);
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn tls_on_a_plain_port_is_no_http() {
    let receiver = receiver_with(Tls::Valid).await;
    let url = receiver.url("/").replace("https:", "http:");
    let attempt = attempt(&url).await;
    assert_eq!(attempt.verdict(), Verdict::Retryable, "{attempt:?}");
    assert!(matches!(
        attempt.error_kind(),
        Some(ErrorKind::Protocol | ErrorKind::Reset)
    ));
    assert!(receiver.requests().is_empty());
}
