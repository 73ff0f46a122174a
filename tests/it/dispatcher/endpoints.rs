//! Endpoints that come, change and go while it runs.

use jiff::Timestamp;
use tidings::retry::{Backoff, RetryPolicy};
use tidings::signing::{Secret, Verifier, VerifyError};
use tidings_test_support::Script;

use super::*;

#[tokio::test]
async fn an_endpoint_that_is_not_there_hands_the_message_back() {
    let (dispatcher, _errors) = started(Dispatcher::builder());
    let error = dispatcher.notify("a", "x").unwrap_err();
    assert_eq!(error.reason(), Refusal::UnknownEndpoint);
    assert_eq!(error.message().body(), "x");
    let error = dispatcher.enqueue("a", "x").await.unwrap_err();
    assert_eq!(error.reason(), Refusal::UnknownEndpoint);
    let error = dispatcher.deliver("a", "x").await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert!(dispatcher.remove("a").is_none());
    assert!(dispatcher.status("a").is_none());
    assert!(!dispatcher.open_circuit("a"));
}

#[tokio::test]
async fn a_changed_endpoint_keeps_its_queue_and_the_next_attempt_uses_the_new_settings() {
    let server = Server::start().await;
    let (dispatcher, _errors) = started(Dispatcher::builder());
    dispatcher.insert("a", server.endpoint("/ok/old"));
    dispatcher.open_circuit("a");
    for _ in 0..10 {
        dispatcher.notify("a", "x").unwrap();
    }
    assert!(!dispatcher.insert("a", server.endpoint("/ok/new")));
    assert_eq!(status(&dispatcher, "a").queued, 10);
    assert_eq!(status(&dispatcher, "a").circuit, Some(CircuitState::Open));
    dispatcher.close_circuit("a");
    dispatcher.stop().await;
    assert_eq!(server.requests("/ok/old"), 0);
    assert_eq!(server.requests("/ok/new"), 10);
}

#[tokio::test]
async fn a_removed_endpoint_hands_back_what_waits_and_finishes_what_is_under_way() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder());
    dispatcher.insert("a", server.endpoint("/held/a"));
    let under_way = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.deliver("a", "under way").await }
    });
    while server.requests("/held/a") == 0 {
        yield_now().await;
    }
    dispatcher.notify("a", "queued").unwrap();

    let left = dispatcher.remove("a").unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].body(), "queued");
    let (id, error) = errors.recv().await.unwrap();
    assert_eq!(id.as_str(), "a");
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert_eq!(error.message(), &left[0]);

    server.held.add_permits(1);
    under_way.await.unwrap().unwrap();
    assert!(dispatcher.endpoints().is_empty());
}

#[tokio::test]
async fn what_fails_after_its_endpoint_was_removed_is_not_tried_again() {
    let gate = Gate::new();
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE).after(gate.clone());
    let receiver = receiver(busy).await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(at_once(5)));
    let endpoint = Endpoint::new(receiver.url("/")).unwrap();
    dispatcher.insert("a", endpoint);
    dispatcher.notify("a", "x").unwrap();
    receiver.request(1).await;
    dispatcher.remove("a").unwrap();
    gate.open();
    let (_id, error) = errors.recv().await.unwrap();
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn those_who_wait_for_room_are_sent_away_when_their_endpoint_is_removed() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_queue_size(1);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", server.endpoint("/dead"));
    dispatcher.open_circuit("a");
    dispatcher.notify("a", "queued").unwrap();
    let waiting = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.enqueue("a", "waits").await }
    });
    yield_now().await;
    dispatcher.remove("a").unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Refusal::UnknownEndpoint);
    assert_eq!(error.message().body(), "waits");
}

#[tokio::test]
async fn what_waits_for_a_retry_is_handed_back_when_its_endpoint_is_removed() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(in_an_hour()));
    let endpoint = server.endpoint("/status/503");
    dispatcher.insert("a", endpoint);
    for _ in 0..3 {
        dispatcher.notify("a", "x").unwrap();
    }
    while server.requests("/status/503") < 3 || status(&dispatcher, "a").in_flight > 0 {
        yield_now().await;
    }
    assert_eq!(status(&dispatcher, "a").queued, 3);
    let left = dispatcher.remove("a").unwrap();
    assert_eq!((left.len(), dispatcher.queued()), (3, 0));
    for _ in 0..3 {
        let (_, error) = errors.recv().await.unwrap();
        assert!(left.contains(error.message()));
        assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
        assert_eq!(error.attempts().len(), 1);
    }
}

#[tokio::test]
async fn a_retry_is_signed_with_the_secrets_of_its_own_time() {
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let receiver = receiver(Script::sequence([busy], Reply::ok())).await;
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(at_once(2)));
    let (old, new) = (Secret::generate(), Secret::generate());
    let signed_with = |secret: &Secret| {
        let endpoint = Endpoint::builder(receiver.url("/")).secret(secret.clone());
        endpoint.build().unwrap()
    };
    let lane = at_once(2).with_circuit_breaker(CircuitBreakerConfig::default());
    dispatcher
        .insert_with("a", signed_with(&old), &lane)
        .unwrap();
    let delivery = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.deliver("a", "x").await }
    });
    receiver.request(1).await;
    // The retry waits until the circuit is closed again.
    dispatcher.open_circuit("a");
    dispatcher.insert("a", signed_with(&new));
    dispatcher.close_circuit("a");
    assert_eq!(delivery.await.unwrap().unwrap().attempts.len(), 2);

    let (first, second) = (receiver.request(1).await, receiver.request(2).await);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    for (request, right, wrong) in [(&first, &old, &new), (&second, &new, &old)] {
        let verify = |secret: &Secret| {
            let headers = &request.head.headers;
            let verifier = Verifier::new(secret.clone());
            verifier
                .verify(headers, &request.body, Timestamp::now())
                .map(drop)
        };
        assert_eq!(verify(right), Ok(()));
        assert_eq!(verify(wrong), Err(VerifyError::NoMatch));
    }
}

#[tokio::test]
async fn a_delivery_that_is_dropped_before_it_has_room_is_never_sent() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_queue_size(1);
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", server.endpoint("/ok"));
    dispatcher.open_circuit("a");
    dispatcher.notify("a", "queued").unwrap();
    let mut waiting = Box::pin(dispatcher.deliver("a", "waits"));
    assert!(support::is_pending(waiting.as_mut()).await);
    drop(waiting);
    dispatcher.close_circuit("a");
    dispatcher.stop().await;
    assert_eq!(server.requests("/ok"), 1);
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn a_new_url_starts_with_a_closed_circuit_and_the_same_one_keeps_it() {
    let server = Server::start().await;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(HOUR / 10);
    let lane = LaneConfig::default()
        .without_retry()
        .with_circuit_breaker(breaker);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", server.endpoint("/status/500"));
    dispatcher.deliver("a", "trips").await.unwrap_err();
    dispatcher.insert("a", server.endpoint("/status/500"));
    assert_eq!(status(&dispatcher, "a").circuit, Some(CircuitState::Open));
    dispatcher.insert("a", server.endpoint("/ok"));
    assert_eq!(status(&dispatcher, "a").circuit, Some(CircuitState::Closed));
    dispatcher.deliver("a", "x").await.unwrap();
    // By hand it stays open.
    dispatcher.open_circuit("a");
    dispatcher.insert("a", server.endpoint("/ok/moved"));
    assert_eq!(status(&dispatcher, "a").circuit, Some(CircuitState::Open));
}

#[tokio::test]
async fn callers_that_wait_for_the_common_queue_are_refused_when_their_endpoint_is_removed() {
    let (dispatcher, _errors) = started(Dispatcher::builder().queue_size(1));
    for id in ["a", "b"] {
        let endpoint = Endpoint::new("http://127.0.0.1:9/").unwrap();
        dispatcher.insert(id, endpoint);
        dispatcher.open_circuit(id);
    }
    dispatcher.notify("a", "fills the queue").unwrap();
    let mut waiting = Box::pin(dispatcher.enqueue("b", "waits"));
    assert!(support::is_pending(waiting.as_mut()).await);
    dispatcher.remove("b").unwrap();
    let error = waiting.await.unwrap_err();
    assert_eq!(error.reason(), Refusal::UnknownEndpoint);
}

/// Asks its dispatcher something when it is dropped, from another thread, and tells whether it got a reply.
#[derive(Debug)]
struct AsksWhenDropped {
    dispatcher: Dispatcher,
    has_reply: std::sync::mpsc::Sender<bool>,
}

impl Backoff for AsksWhenDropped {
    fn delay(&self, _failures: u32, _random: f64) -> Option<Duration> {
        None
    }
}

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        let (dispatcher, (reply, replied)) = (self.dispatcher.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || reply.send(dispatcher.status("a").is_some()));
        let has_reply = replied.recv_timeout(Duration::from_secs(10));
        self.has_reply.send(has_reply == Ok(true)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backoff_that_was_replaced_may_use_the_dispatcher_when_the_last_attempt_drops_it() {
    for is_interrupted in [false, true] {
        let gate = Gate::new();
        let server = receiver(Reply::ok().after(gate.clone())).await;
        let (dispatcher, _errors) = started(Dispatcher::builder());
        let endpoint = Endpoint::new(server.url("/")).unwrap();
        let (has_reply, replied) = std::sync::mpsc::channel();
        let asks = AsksWhenDropped {
            dispatcher: dispatcher.clone(),
            has_reply,
        };
        let lane = LaneConfig::default().with_retry(RetryPolicy::new(asks));
        dispatcher
            .insert_with("a", endpoint.clone(), &lane)
            .unwrap();
        drop(lane);
        dispatcher.notify("a", "x").unwrap();
        server.request(1).await;
        let other = LaneConfig::default().without_retry();
        dispatcher.insert_with("a", endpoint, &other).unwrap();
        assert!(replied.try_recv().is_err());
        if !is_interrupted {
            gate.open();
        }
        let limit = if is_interrupted { Duration::ZERO } else { HOUR };
        dispatcher.stop_within(limit).await;
        assert!(replied.recv().unwrap(), "{is_interrupted}");
    }
}
