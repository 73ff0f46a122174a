//! The end of a client, in every order.

use super::*;

#[tokio::test]
async fn stop_drains_what_was_accepted_and_is_final() {
    let server = server(&[200]).await;
    let (client, _errors) = started(Client::builder(server.uri()).workers(3));
    client.start();
    for _ in 0..50 {
        client.notify("event occurred").unwrap();
    }
    client.stop().await;
    assert_eq!(server.received_requests().await.unwrap().len(), 50);

    assert!(matches!(client.notify("x"), Err(NotifyError::Stopped(_))));
    assert!(matches!(
        client.enqueue("x").await,
        Err(NotifyError::Stopped(_))
    ));
    client.start();
    assert!(matches!(client.notify("x"), Err(NotifyError::Stopped(_))));
    client.stop().await;
}

#[tokio::test]
async fn a_client_that_was_stopped_before_its_start_never_starts() {
    let client = Client::new("http://127.0.0.1:9/").unwrap();
    client.stop().await;
    client.start();
    assert!(matches!(client.notify("x"), Err(NotifyError::Stopped(_))));
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_returned_and_reported() {
    let receiver = silent().await;
    let (client, mut errors) = started(Client::builder(receiver.url("/")).workers(2));
    for _ in 0..10 {
        client.notify("x").unwrap();
    }
    receiver.request(2).await;
    let left = client.stop_within(Duration::from_millis(10)).await;
    assert_eq!(left.len(), 10);
    for _ in 0..10 {
        let (message, error) = errors.recv().await.unwrap();
        assert!(left.contains(&message));
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
    }
    assert!(errors.try_recv().is_err());
    assert!(client.stop_within(Duration::ZERO).await.is_empty());
}

#[tokio::test]
async fn dropping_the_last_clone_reports_what_is_left() {
    let receiver = silent().await;
    let (client, mut errors) = started(Client::builder(receiver.url("/")).workers(1));
    let clone = client.clone();
    drop(client);
    clone.notify("under way").unwrap();
    receiver.request(1).await;
    clone.notify("queued").unwrap();
    drop(clone);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let (message, error) = errors.recv().await.unwrap();
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
        bodies.push(message.body().clone());
    }
    bodies.sort();
    assert_eq!(bodies, ["queued", "under way"]);
    // The callback is gone with the workers: nothing runs on.
    assert!(errors.recv().await.is_none());
}

#[test]
fn a_runtime_that_ends_first_loses_no_message_silently() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut errors) = runtime.block_on(async {
        let receiver = silent().await;
        let (client, errors) = started(Client::builder(receiver.url("/")));
        client.notify("x").unwrap();
        receiver.request(1).await;
        (client, errors)
    });
    drop(runtime);
    let (message, _error) = errors.try_recv().unwrap();
    assert_eq!(message.body(), "x");
    drop(client);
}
