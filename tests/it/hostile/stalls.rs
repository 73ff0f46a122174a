//! Receivers that keep a sender waiting.

use std::time::Duration;

use tidings::{Endpoint, ErrorKind, Message, Verdict};
use tidings_test_support::{Behaviour, Gate, Receiver, Reply, Script, Tls, Unreachable};

use super::*;

#[tokio::test]
async fn a_connection_that_never_comes_about_costs_the_connect_timeout() {
    let unreachable = Unreachable::silent().await.unwrap();
    let sender = builder().connect_timeout(SHORT).build().unwrap();
    let endpoint = Endpoint::builder(unreachable.url("/")).timeout(PATIENT);
    let attempt = attempt_by(&sender, endpoint).await;
    assert_nothing_left(&attempt, ErrorKind::ConnectTimeout);
    assert!(attempt.elapsed < PATIENT);

    // The whole deadline says the same when it comes first.
    let attempt = hasty_attempt(&unreachable.url("/")).await;
    assert_nothing_left(&attempt, ErrorKind::ConnectTimeout);
}

#[tokio::test]
async fn a_handshake_that_stalls_costs_the_connect_timeout() {
    let receiver = Receiver::builder(Behaviour::NeverReply)
        .with_tls(Tls::Stalled)
        .start()
        .await
        .unwrap();
    let sender = builder().connect_timeout(SHORT).build().unwrap();
    let endpoint = Endpoint::builder(receiver.url("/")).timeout(PATIENT);
    let attempt = attempt_by(&sender, endpoint).await;
    assert_nothing_left(&attempt, ErrorKind::ConnectTimeout);
    receiver.closed(1).await;
}

#[tokio::test]
async fn a_reply_that_never_comes_costs_the_deadline_and_lets_go_of_the_connection() {
    let receiver = receiver(Behaviour::NeverReply).await;
    let attempt = hasty_attempt(&receiver.url("/")).await;
    assert_ambiguous(&attempt, ErrorKind::ResponseTimeout);
    assert!(attempt.elapsed >= SHORT);
    assert_eq!(receiver.request(1).await.body, "hello");
    receiver.closed(1).await;
}

#[tokio::test]
async fn the_first_byte_has_a_deadline_of_its_own() {
    let receiver = receiver(Behaviour::NeverReply).await;
    let endpoint = Endpoint::builder(receiver.url("/"))
        .timeout(PATIENT)
        .first_byte_timeout(SHORT);
    let attempt = attempt_by(&sender(), endpoint).await;
    assert_ambiguous(&attempt, ErrorKind::ResponseTimeout);
    assert!(attempt.elapsed < PATIENT);
}

#[tokio::test]
async fn a_head_that_drips_costs_the_deadline_though_every_read_succeeds() {
    let pause = Duration::from_millis(1);
    let receiver = receiver(Behaviour::DripHead { pause }).await;
    let attempt = hasty_attempt(&receiver.url("/")).await;
    assert_ambiguous(&attempt, ErrorKind::ResponseTimeout);
    receiver.closed(1).await;
}

#[tokio::test]
async fn a_body_that_drips_is_left_after_a_second_and_the_status_decides() {
    let pause = Duration::from_millis(1);
    let receiver = receiver(Behaviour::DripBody { pause }).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert!(attempt.elapsed < PATIENT / 2, "{:?}", attempt.elapsed);
    assert!(attempt.result.unwrap().body_head.starts_with(b"x"));
    receiver.closed(1).await;
}

#[tokio::test]
async fn a_reply_that_is_late_but_in_time_is_a_success() {
    let gate = Gate::new();
    let receiver = receiver(Reply::ok().after(gate.clone())).await;
    let url = receiver.url("/");
    let (attempt, ()) = tokio::join!(attempt(&url), async {
        receiver.request(1).await;
        gate.open();
    });
    assert_eq!(attempt.verdict(), Verdict::Delivered);
}

#[tokio::test]
async fn receivers_that_stall_hold_up_no_other_attempt_of_the_same_sender() {
    let stalled = receiver(Script::always(Behaviour::NeverReply)).await;
    let healthy = receiver(Reply::ok()).await;
    let sender = sender();
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let sender = sender.clone();
        let endpoint = Endpoint::builder(stalled.url("/")).timeout(PATIENT);
        let endpoint = endpoint.build().unwrap();
        held.spawn(async move { sender.attempt(&endpoint, &Message::from("x"), 1).await });
    }
    stalled.request(100).await;
    let endpoint = Endpoint::builder(healthy.url("/")).timeout(PATIENT);
    let attempt = attempt_by(&sender, endpoint).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(held.len(), 100);
}
