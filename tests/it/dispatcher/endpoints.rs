//! Endpoints that come, change and go while it runs.

use super::*;

#[tokio::test]
async fn an_endpoint_that_is_not_there_hands_the_message_back() {
    let (dispatcher, _errors) = started(Dispatcher::builder());
    let error = dispatcher.notify("a", "x").unwrap_err();
    assert!(matches!(&error, NotifyError::UnknownEndpoint(message) if message.body() == "x"));
    let error = dispatcher.enqueue("a", "x").await.unwrap_err();
    assert!(matches!(error, NotifyError::UnknownEndpoint(_)));
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
    dispatcher.insert("a", server.endpoint("/ok/old")).unwrap();
    dispatcher.open_circuit("a");
    for _ in 0..10 {
        dispatcher.notify("a", "x").unwrap();
    }
    assert!(!dispatcher.insert("a", server.endpoint("/ok/new")).unwrap());
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
    dispatcher.insert("a", server.endpoint("/held/a")).unwrap();
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
    let busy = Answer::new(StatusCode::SERVICE_UNAVAILABLE).after(gate.clone());
    let receiver = receiver(busy).await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(at_once(5)));
    let endpoint = Endpoint::new(receiver.url("/")).unwrap();
    dispatcher.insert("a", endpoint).unwrap();
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
    dispatcher.insert("a", server.endpoint("/dead")).unwrap();
    dispatcher.open_circuit("a");
    dispatcher.notify("a", "queued").unwrap();
    let waiting = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.enqueue("a", "waits").await }
    });
    yield_now().await;
    dispatcher.remove("a").unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, NotifyError::UnknownEndpoint(message) if message.body() == "waits"));
}
