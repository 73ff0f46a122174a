//! Receivers that cannot prove who they are.

use tidings::{
    AddressPolicy, Client, DeliveryError, Dispatcher, Endpoint, ErrorKind, Receipt, Sender, Verdict,
};
use tidings_test_support::{Answer, Authority, Receiver, Tls};

use super::built_in::attempt;
use super::*;

async fn receiver_with(tls: Tls) -> Receiver {
    let builder = Receiver::builder(Answer::ok()).with_tls(tls);
    builder.start().await.unwrap()
}

/// A sender that trusts this authority besides those of the system.
fn trusting(authority: &Authority) -> Sender {
    Sender::builder()
        .root_certificates(authority.pem())
        .build()
        .unwrap()
}

/// The failed attempt at a receiver whose authority is trusted.
async fn refused(tls: Tls) -> String {
    let receiver = receiver_with(tls).await;
    let sender = trusting(receiver.authority().unwrap());
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
    let sender = trusting(receiver.authority().unwrap());
    for host in ["127.0.0.1", "localhost"] {
        let url = receiver.url("/").replace("127.0.0.1", host);
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    }
}

#[tokio::test]
async fn the_handshake_is_timed_by_itself() {
    let receiver = receiver_with(Tls::Valid).await;
    let sender = trusting(receiver.authority().unwrap());
    let attempt = || attempt_by(&sender, Endpoint::builder(receiver.url("/")));
    let first = attempt().await;
    let (connect, tls) = (first.phases.connect.unwrap(), first.phases.tls.unwrap());
    let first_byte = first.phases.first_byte.unwrap();
    assert!(connect + tls + first_byte <= first.elapsed, "{first:?}");
    assert!(tls > Duration::ZERO, "{first:?}");
    // The connection is used again.
    let second = attempt().await.phases;
    assert_eq!((second.connect, second.tls), (None, None));

    let plain = crate::support::receiver(Answer::ok()).await;
    let attempt = attempt_by(&sender, Endpoint::builder(plain.url("/"))).await;
    assert!(attempt.phases.connect.is_some() && attempt.phases.tls.is_none());
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_client_of_ones_own_brings_its_own_trust() {
    let receiver = receiver_with(Tls::Valid).await;
    let pem = receiver.authority().unwrap().pem();
    let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]);
    let sender = Sender::builder().http_client(client).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
}

#[tokio::test]
async fn clients_and_dispatchers_trust_an_authority_and_keep_their_address_policy() {
    let receiver = receiver_with(Tls::Valid).await;
    let pem = receiver.authority().unwrap().pem();
    for (policy, reaches) in [
        (AddressPolicy::Any, true),
        (AddressPolicy::PublicOnly, false),
    ] {
        let client = Client::builder(receiver.url("/"))
            .sender(|sender| sender.address_policy(policy.clone()).root_certificates(pem))
            .build()
            .unwrap();
        client.start();
        assert_reached(client.deliver("x").await, reaches);

        let dispatcher = Dispatcher::builder()
            .sender(|sender| sender.address_policy(policy).root_certificates(pem))
            .build()
            .unwrap();
        dispatcher.start();
        let endpoint = Endpoint::new(receiver.url("/")).unwrap();
        dispatcher.insert("a", endpoint);
        assert_reached(dispatcher.deliver("a", "x").await, reaches);
    }
    assert_eq!(receiver.requests().len(), 2);
}

#[track_caller]
fn assert_reached(delivery: Result<Receipt, DeliveryError>, reaches: bool) {
    match delivery {
        Ok(_) => assert!(reaches),
        Err(error) => {
            let kind = error.attempts()[0].error_kind();
            assert_eq!((kind, reaches), (Some(ErrorKind::BlockedAddress), false));
        }
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
    let receiver = receiver(Answer::ok()).await;
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

#[tokio::test]
async fn certificates_that_are_none_are_refused_when_the_sender_is_built() {
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = Sender::builder()
            .root_certificates(pem)
            .build()
            .unwrap_err();
        assert_eq!(error.field(), "root_certificates", "{pem:?}");
    }
}
