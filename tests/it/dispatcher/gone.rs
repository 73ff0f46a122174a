//! Endpoints that reply `410 Gone`.

use tidings_test_support::{Receiver, Script};

use super::*;

/// A started dispatcher, and the endpoints that it says are gone.
fn reporting(lane: LaneConfig) -> (Dispatcher, Errors, mpsc::Receiver<String>) {
    let (report, gone) = mpsc::channel(100);
    let builder = Dispatcher::builder()
        .lane(lane)
        .on_gone(move |id| report.try_send(id.to_string()).unwrap());
    let (dispatcher, errors) = started(builder);
    (dispatcher, errors, gone)
}

fn to(receiver: &Receiver) -> Endpoint {
    Endpoint::new(receiver.url("/")).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_nothing_more_and_its_backlog_is_reported() {
    let gate = Gate::new();
    let receiver = receiver(Reply::gone().after(gate.clone())).await;
    let (dispatcher, mut errors, mut gone) = reporting(at_once(5));
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "replied").unwrap();
    receiver.request(1).await;
    for _ in 0..3 {
        dispatcher.notify("a", "waited").unwrap();
    }
    let mut waiting = Box::pin(dispatcher.deliver("a", "waited for"));
    assert!(support::is_pending(waiting.as_mut()).await);
    gate.open();

    assert_eq!(gone.recv().await.unwrap(), "a");
    let (_, error) = errors.recv().await.unwrap();
    assert_eq!(error.message().body(), "replied");
    assert_eq!(error.status(), Some(StatusCode::GONE));
    for _ in 0..3 {
        let (id, error) = errors.recv().await.unwrap();
        assert_eq!(id.as_str(), "a");
        assert_eq!(error.message().body(), "waited");
        assert!(matches!(error.cause(), DeliveryErrorCause::Gone));
        assert!(!error.is_retryable() && error.attempts().is_empty());
    }
    let error = waiting.await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::Gone));

    let status = status(&dispatcher, "a");
    assert!(status.is_gone);
    assert_eq!((status.queued, dispatcher.queued()), (0, 0));
    let refused = dispatcher.notify("a", "x").unwrap_err();
    assert_eq!(refused.reason(), Refusal::Gone);
    assert_eq!(refused.message().body(), "x");
    let refused = dispatcher.enqueue("a", "x").await;
    assert_eq!(refused.unwrap_err().reason(), Refusal::Gone);
    let refused = dispatcher.deliver("a", "x").await.unwrap_err();
    assert!(matches!(refused.cause(), DeliveryErrorCause::Gone));
    assert_eq!(receiver.requests().len(), 1);
    assert!(errors.try_recv().is_err() && gone.try_recv().is_err());
}

#[tokio::test]
async fn an_endpoint_that_is_inserted_again_gets_messages_again() {
    let receiver = receiver(Script::sequence([Reply::gone()], Reply::ok())).await;
    let (dispatcher, _errors, _gone) = reporting(at_once(5));
    dispatcher.insert("a", to(&receiver));
    dispatcher.deliver("a", "x").await.unwrap_err();
    assert!(status(&dispatcher, "a").is_gone);
    assert!(!dispatcher.insert("a", to(&receiver)));
    assert!(!status(&dispatcher, "a").is_gone);
    dispatcher.deliver("a", "x").await.unwrap();
}

#[tokio::test]
async fn those_who_wait_for_room_get_their_message_back_when_the_endpoint_is_gone() {
    let gate = Gate::new();
    let receiver = receiver(Reply::gone().after(gate.clone())).await;
    let (dispatcher, _errors, _gone) = reporting(at_once(5).with_queue_size(2));
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "under way").unwrap();
    receiver.request(1).await;
    dispatcher.notify("a", "queued").unwrap();
    let waiting = [(); 3].map(|()| {
        tokio::spawn({
            let dispatcher = dispatcher.clone();
            async move { dispatcher.enqueue("a", "waits").await }
        })
    });
    yield_now().await;
    gate.open();
    for waiting in waiting {
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Refusal::Gone);
        assert_eq!(error.message().body(), "waits");
    }
}

#[tokio::test]
async fn what_fails_after_its_endpoint_was_gone_is_not_tried_again() {
    let (goes, fails) = (Gate::new(), Gate::new());
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let replies = [Reply::gone().after(goes.clone()), busy.after(fails.clone())];
    let receiver = receiver(Script::sequence(replies, Reply::ok())).await;
    let (dispatcher, mut errors, mut gone) = reporting(at_once(5).with_in_flight(2, 2));
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "x").unwrap();
    receiver.request(1).await;
    dispatcher.notify("a", "under way").unwrap();
    receiver.request(2).await;
    goes.open();
    gone.recv().await.unwrap();
    errors.recv().await.unwrap();

    fails.open();
    let (_, error) = errors.recv().await.unwrap();
    assert_eq!(error.message().body(), "under way");
    assert!(matches!(error.cause(), DeliveryErrorCause::Gone));
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn several_replies_of_gone_are_reported_once() {
    let gate = Gate::new();
    let receiver = receiver(Reply::gone().after(gate.clone())).await;
    let (dispatcher, mut errors, mut gone) = reporting(at_once(5).with_in_flight(4, 4));
    dispatcher.insert("a", to(&receiver));
    for _ in 0..4 {
        dispatcher.notify("a", "x").unwrap();
    }
    receiver.request(4).await;
    gate.open();
    for _ in 0..4 {
        let (_, error) = errors.recv().await.unwrap();
        assert_eq!(error.status(), Some(StatusCode::GONE));
    }
    dispatcher.stop().await;
    assert_eq!(gone.recv().await.unwrap(), "a");
    assert!(gone.try_recv().is_err());
}

#[tokio::test]
async fn a_reply_of_the_endpoint_as_it_was_says_nothing_about_the_one_that_is() {
    let gate = Gate::new();
    let old = receiver(Reply::gone().after(gate.clone())).await;
    let new = receiver(Reply::ok()).await;
    let (dispatcher, mut errors, mut gone) = reporting(at_once(5));
    dispatcher.insert("a", to(&old));
    dispatcher.notify("a", "to the old one").unwrap();
    old.request(1).await;
    dispatcher.insert("a", to(&new));
    gate.open();
    let (_, error) = errors.recv().await.unwrap();
    assert_eq!(error.status(), Some(StatusCode::GONE));
    assert!(!status(&dispatcher, "a").is_gone && gone.try_recv().is_err());
    dispatcher.deliver("a", "to the new one").await.unwrap();
}

#[tokio::test]
async fn a_lane_may_take_gone_for_a_failure_of_its_message_alone() {
    let receiver = receiver(Script::sequence([Reply::gone()], Reply::ok())).await;
    let (dispatcher, _errors, mut gone) = reporting(at_once(5).without_stop_when_gone());
    dispatcher.insert("a", to(&receiver));
    let error = dispatcher.deliver("a", "x").await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::GONE));
    dispatcher.deliver("a", "x").await.unwrap();
    assert!(!status(&dispatcher, "a").is_gone && gone.try_recv().is_err());
}

#[tokio::test]
async fn a_panicking_callback_keeps_nothing_from_being_reported() {
    let receiver = receiver(Reply::gone()).await;
    let builder = Dispatcher::builder().on_gone(|_| panic!("this is a test"));
    let (dispatcher, mut errors) = started(builder);
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "x").unwrap();
    let (_, error) = errors.recv().await.unwrap();
    assert_eq!(error.status(), Some(StatusCode::GONE));
    dispatcher.stop().await;
}
