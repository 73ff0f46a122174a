//! Runtimes that end before the client does.

use tokio::runtime::{Builder, Runtime};

use super::*;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_client_whose_runtime_has_ended_refuses_messages_and_stops() {
    let (first, second) = (runtime(), runtime());
    let (client, mut errors) =
        first.block_on(async { started(Client::builder("http://127.0.0.1:9/").workers(1)) });
    drop(first);
    second.block_on(async {
        let refused = client.notify("x").unwrap_err();
        assert_eq!(refused.reason(), Refusal::Stopped);
        let refused = client.enqueue("x").await.unwrap_err();
        assert_eq!(refused.reason(), Refusal::Stopped);
        let error = timeout(SOON, client.deliver("x")).await.unwrap();
        let error = error.unwrap_err();
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
        client.start();
        assert!(client.notify("x").is_err());
        timeout(SOON, client.stop()).await.unwrap();
    });
    assert!(errors.try_recv().is_err());
}

#[test]
fn what_a_runtime_leaves_behind_is_reported_and_handed_back() {
    let (first, second) = (runtime(), runtime());
    let receiver = second.block_on(silent());
    let (client, mut errors) = first.block_on(async {
        started(
            Client::builder(receiver.url("/"))
                .workers(1)
                .retry(in_an_hour()),
        )
    });
    second.block_on(async {
        client.notify("under way").unwrap();
        receiver.request(1).await;
        client.notify("queued").unwrap();
    });
    let waiting = second.spawn({
        let client = client.clone();
        async move { client.deliver("waited for").await }
    });
    while client.queued() < 2 {
        std::thread::yield_now();
    }
    drop(first);
    second.block_on(async {
        let error = timeout(SOON, waiting).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let (message, error) = errors.recv().await.unwrap();
            assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
            bodies.push(message.body().clone());
        }
        bodies.sort();
        assert_eq!(bodies, ["queued", "under way"]);
        let left = timeout(SOON, client.stop_within(Duration::ZERO)).await;
        assert_eq!(left.unwrap().len(), 3);
        assert_eq!(client.queued(), 0);
    });
}

#[test]
fn a_client_can_be_stopped_from_another_runtime() {
    let (first, second) = (runtime(), runtime());
    let receiver = second.block_on(receiver(Reply::ok()));
    let (client, mut errors) =
        first.block_on(async { started(Client::builder(receiver.url("/"))) });
    for _ in 0..5 {
        client.notify("x").unwrap();
    }
    second.block_on(async { timeout(SOON, client.stop()).await.unwrap() });
    assert_eq!(receiver.requests().len(), 5);
    assert!(errors.try_recv().is_err());
}
