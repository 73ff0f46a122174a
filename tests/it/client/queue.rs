//! What the queue bounds, and who waits for it.

use super::*;

#[tokio::test]
async fn starting_twice_adds_no_workers() {
    let receiver = silent().await;
    let (client, _errors) = started(Client::builder(receiver.url("/")).workers(1));
    client.start();
    client.notify("first").unwrap();
    client.notify("second").unwrap();
    receiver.request(1).await;
    tokio::task::yield_now().await;
    assert_eq!(client.queued(), 1);
}

#[tokio::test]
async fn ten_workers_a_queue_of_a_thousand_and_thirty_seconds_are_the_defaults() {
    let receiver = silent().await;
    let (client, _errors) = started(Client::builder(receiver.url("/")));
    for number in 1..=10 {
        client.notify("under way").unwrap();
        receiver.request(number).await;
    }
    for _ in 0..1000 {
        client.notify("queued").unwrap();
    }
    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::QueueFull);
    assert_eq!(client.queued(), 1000);
    let endpoint = tidings::Endpoint::new(receiver.url("/")).unwrap();
    assert_eq!(endpoint.timeout(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_full_queue_refuses_and_hands_the_message_back() {
    let receiver = silent().await;
    let (client, _errors) = started(Client::builder(receiver.url("/")).workers(1).queue_size(2));
    client.notify("under way").unwrap();
    receiver.request(1).await;
    client.notify("first").unwrap();
    client.notify("second").unwrap();
    let message = Message::from("third");
    let error = client.notify(message.clone()).unwrap_err();
    assert_eq!(error.reason(), Refusal::QueueFull);
    assert!(error.is_full() && error.is_retryable());
    assert_eq!(error.into_message(), message);
    assert_eq!(client.queued(), 2);
}

#[tokio::test]
async fn messages_that_wait_for_a_retry_count_in_the_queue_and_hold_no_worker() {
    let server = server(&[500, 500, 200]).await;
    let builder = Client::builder(server.uri()).workers(1).queue_size(3);
    let (client, mut errors) = started(builder.retry(in_an_hour()));
    client.notify("waits").unwrap();
    client.notify("waits too").unwrap();
    // The only worker is free for this one.
    client.deliver("goes through").await.unwrap();
    assert_eq!(client.queued(), 2);

    client.notify("to be delivered").unwrap();
    while client.queued() > 2 || server.received_requests().await.unwrap().len() < 4 {
        tokio::task::yield_now().await;
    }
    client.enqueue("room was made").await.unwrap();
    let left = client.stop_within(Duration::ZERO).await;
    assert!(left.len() >= 2, "{left:?}");
    for _ in &left {
        let (message, error) = errors.recv().await.unwrap();
        assert!(left.contains(&message));
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
    }
}

#[tokio::test]
async fn waiting_messages_fill_the_queue() {
    let server = server(&[500]).await;
    let builder = Client::builder(server.uri())
        .queue_size(5)
        .retry(in_an_hour());
    let (client, _errors) = started(builder);
    for _ in 0..5 {
        client.notify("x").unwrap();
    }
    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::QueueFull);
    while client.queued() < 5 || server.received_requests().await.unwrap().len() < 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::QueueFull);
}

#[tokio::test]
async fn enqueue_waits_for_room_and_can_be_cancelled() {
    let (first, rest) = (Gate::new(), Gate::new());
    let replies = Script::sequence(
        [Reply::ok().after(first.clone())],
        Reply::ok().after(rest.clone()),
    );
    let receiver = receiver(replies).await;
    let (client, _errors) = started(Client::builder(receiver.url("/")).workers(1).queue_size(1));
    client.notify("under way").unwrap();
    receiver.request(1).await;
    client.notify("queued").unwrap();

    let mut waiting = Box::pin(client.enqueue("waits"));
    assert!(is_pending(waiting.as_mut()).await);
    let mut cancelled = Box::pin(client.enqueue("cancelled"));
    assert!(is_pending(cancelled.as_mut()).await);
    drop(cancelled);

    first.open();
    waiting.await.unwrap();
    rest.open();
    client.stop().await;
    let bodies: Vec<_> = (receiver.requests().into_iter())
        .map(|request| request.body)
        .collect();
    assert_eq!(bodies, ["under way", "queued", "waits"]);
}

#[tokio::test]
async fn those_who_wait_for_room_get_their_message_back_when_the_client_stops() {
    let receiver = silent().await;
    let (client, _errors) = started(Client::builder(receiver.url("/")).workers(1).queue_size(1));
    client.notify("under way").unwrap();
    receiver.request(1).await;
    client.notify("queued").unwrap();
    let mut waiting = Box::pin(client.enqueue("waits"));
    assert!(is_pending(waiting.as_mut()).await);
    assert_eq!(client.stop_within(Duration::ZERO).await.len(), 2);
    let error = waiting.await.unwrap_err();
    assert_eq!(error.reason(), Refusal::Stopped);
    assert_eq!(error.message().body(), "waits");
}
