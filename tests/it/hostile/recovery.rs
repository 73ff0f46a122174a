//! What a client makes of receivers that fail for a while.

use std::time::Duration;

use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::signing::{Secret, Verifier};
use tidings::{Client, ClientBuilder, DeliveryErrorCause, Message};
use tidings_test_support::{Behaviour, Gate, Reply, Script};

use super::*;
use crate::support::at_once;

fn client(url: String) -> ClientBuilder {
    Client::builder(url).sender(builder().build().unwrap())
}

#[tokio::test]
async fn a_delivery_survives_a_row_of_broken_replies_under_one_id() {
    let script = Script::sequence(
        [
            Behaviour::ResetAfterBody,
            Behaviour::ResetBeforeBody,
            Behaviour::HangUp,
            Behaviour::HalfHead,
            Behaviour::Raw("SSH-2.0-x\r\n\r\n".into()),
            Behaviour::EndlessHeaders,
            Reply::retry_after("0").into(),
        ],
        Reply::ok(),
    );
    let receiver = receiver(script).await;
    let secret = Secret::generate();
    let client = client(receiver.url("/"))
        .secret(secret.clone())
        .retry(at_once(10))
        .build()
        .unwrap();
    client.start();
    let delivered = client.deliver("hello").await.unwrap();
    assert_eq!(delivered.attempts.len(), 8);
    client.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 8, "one request for each attempt");
    for request in requests.iter().filter(|request| !request.body.is_empty()) {
        let verifier = Verifier::new(secret.clone());
        let headers = &request.head.headers;
        let genuine = verifier.verify(headers, &request.body, jiff::Timestamp::now());
        assert_eq!(genuine.unwrap().id, delivered.message.id());
    }
}

#[tokio::test]
async fn after_a_failure_one_probe_goes_ahead_and_the_backlog_waits_for_its_reply() {
    let probed = Gate::new();
    let script = Script::sequence(
        [
            Reply::new(http::StatusCode::BAD_GATEWAY),
            Reply::ok().after(probed.clone()),
        ],
        Reply::ok(),
    );
    let receiver = receiver(script).await;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(Duration::from_millis(20));
    let client = client(receiver.url("/"))
        .workers(20)
        .retry(at_once(3))
        .circuit_breaker(breaker)
        .build()
        .unwrap();
    client.start();
    client.notify("trips").unwrap();
    receiver.request(1).await;
    while client.circuit_state() == Some(CircuitState::Closed) {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        client.notify("waits").unwrap();
    }
    receiver.request(2).await;
    // All workers are idle and nothing is in their way but the circuit.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.requests().len(), 2);
    assert_eq!(client.circuit_state(), Some(CircuitState::HalfOpen));
    probed.open();
    receiver.request(52).await;
    client.stop().await;
    assert_eq!(receiver.requests().len(), 52);
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_one_request_and_is_reported() {
    let receiver = receiver(Reply::gone()).await;
    let client = client(receiver.url("/")).retry(at_once(5)).build().unwrap();
    client.start();
    let error = client.deliver("x").await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(matches!(error.cause(), DeliveryErrorCause::Status(status) if *status == 410));
    assert_eq!(error.attempts()[0].verdict(), tidings::Verdict::Gone);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn what_was_sent_again_after_a_stop_has_the_same_id() {
    let receiver = receiver(Script::sequence([Behaviour::NeverReply], Reply::ok())).await;
    let build = || {
        let builder = client(receiver.url("/")).secret(Secret::generate());
        let client = builder.build().unwrap();
        client.start();
        client
    };
    let first = build();
    first.notify(Message::from("hello")).unwrap();
    receiver.request(1).await;
    let left = first.stop_within(Duration::ZERO).await;

    let second = build();
    for message in left {
        second.deliver(message).await.unwrap();
    }
    let ids = [1, 2].map(|number| receiver.request(number));
    let [one, two] = ids;
    let (one, two) = (one.await, two.await);
    assert!(one.header("webhook-id").is_some());
    assert_eq!(one.header("webhook-id"), two.header("webhook-id"));
}
