//! What the built-in transport trusts, and what it says about a handshake.

use tidings::{
    AddressPolicy, Client, Delivered, DeliveryError, Dispatcher, Endpoint, ErrorKind, Sender,
};
use tidings_test_support::{Receiver, Reply, Tls};

use super::*;

pub(crate) async fn receiver_with(tls: Tls) -> Receiver {
    let builder = Receiver::builder(Reply::ok()).with_tls(tls);
    builder.start().await.unwrap()
}

#[tokio::test]
async fn the_handshake_is_timed_by_itself() {
    let receiver = receiver_with(Tls::Valid).await;
    let authority = receiver.authority().unwrap();
    let sender = built_in::trusting(authority.pem()).build().unwrap();
    let attempt = || attempt_by(&sender, Endpoint::builder(receiver.url("/")));
    let first = attempt().await;
    let (connect, tls) = (first.phases.connect.unwrap(), first.phases.tls.unwrap());
    let first_byte = first.phases.first_byte.unwrap();
    assert!(connect + tls + first_byte <= first.elapsed, "{first:?}");
    assert!(tls > Duration::ZERO, "{first:?}");
    // The connection is used again.
    let second = attempt().await.phases;
    assert_eq!((second.connect, second.tls), (None, None));

    let plain = crate::support::receiver(Reply::ok()).await;
    let attempt = attempt_by(&sender, Endpoint::builder(plain.url("/"))).await;
    assert!(attempt.phases.connect.is_some() && attempt.phases.tls.is_none());
}

#[tokio::test]
async fn clients_and_dispatchers_trust_an_authority_and_keep_their_address_policy() {
    let receiver = receiver_with(Tls::Valid).await;
    let pem = receiver.authority().unwrap().pem();
    for (policy, reaches) in [
        (AddressPolicy::Any, true),
        (AddressPolicy::PublicOnly, false),
    ] {
        let sender = Sender::builder()
            .address_policy(policy)
            .root_certificates(pem)
            .build()
            .unwrap();
        let client = Client::builder(receiver.url("/"))
            .sender(sender.clone())
            .build()
            .unwrap();
        client.start();
        assert_reached(client.deliver("x").await, reaches);

        let dispatcher = Dispatcher::builder().sender(sender).build().unwrap();
        dispatcher.start();
        let endpoint = Endpoint::new(receiver.url("/")).unwrap();
        dispatcher.insert("a", endpoint);
        assert_reached(dispatcher.deliver("a", "x").await, reaches);
    }
    assert_eq!(receiver.requests().len(), 2);
}

#[track_caller]
fn assert_reached(delivery: Result<Delivered, DeliveryError>, reaches: bool) {
    match delivery {
        Ok(_) => assert!(reaches),
        Err(error) => {
            let kind = error.attempts()[0].error_kind();
            assert_eq!((kind, reaches), (Some(ErrorKind::BlockedAddress), false));
        }
    }
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
