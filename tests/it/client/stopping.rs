//! The end of a client, in every order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::header::RETRY_AFTER;
use http::{Request, Response};
use tidings::transport::{RequestBody, ResponseBody, Transport};
use tidings::{AttemptError, ErrorKind};

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

    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::Stopped);
    assert_eq!(
        client.enqueue("x").await.unwrap_err().reason(),
        Refusal::Stopped
    );
    client.start();
    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::Stopped);
    client.stop().await;
}

#[tokio::test]
async fn a_client_that_was_stopped_before_its_start_never_starts() {
    let client = Client::new("http://127.0.0.1:9/").unwrap();
    client.stop().await;
    client.start();
    assert_eq!(client.notify("x").unwrap_err().reason(), Refusal::Stopped);
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

/// Drops the last clone of the client while the client sends a request, which fails.
struct DropsTheClient(Arc<Mutex<Option<Client>>>);

#[async_trait]
impl Transport for DropsTheClient {
    async fn send(
        &self,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        drop(self.0.lock().unwrap().take());
        Err(AttemptError::new(ErrorKind::Refused, "as the test wants"))
    }
}

#[tokio::test]
async fn an_outcome_that_comes_while_the_last_clone_is_dropped_is_reported() {
    let slot = Arc::new(Mutex::new(None));
    let transport = DropsTheClient(Arc::clone(&slot));
    let sender = Sender::builder().transport(transport).build().unwrap();
    let builder = Client::builder("http://receiver.test/")
        .retry(in_an_hour())
        .sender(sender);
    let (client, mut errors) = started(builder);
    // The worker that takes it runs after this task has given the client away.
    client.notify("x").unwrap();
    *slot.lock().unwrap() = Some(client);
    let reported = timeout(Duration::from_secs(10), errors.recv()).await;
    let (message, error) = reported.unwrap().unwrap();
    assert_eq!(message.body(), "x");
    assert!(error.was_attempted());
    assert!(errors.recv().await.is_none());
}

/// Asks for no requests for so many seconds, so often, and then takes what comes.
struct Asks {
    status: StatusCode,
    seconds: u32,
    times: AtomicU32,
}

#[async_trait]
impl Transport for Asks {
    async fn send(
        &self,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let mut response = Response::new(ResponseBody::empty());
        let left = |left: u32| left.checked_sub(1);
        let asks = (self.times).fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        if asks.is_ok() {
            *response.status_mut() = self.status;
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, self.seconds.into());
        }
        Ok(response)
    }
}

/// Stops a client with twenty messages whose endpoint asks for no requests. Returns how long that takes,
/// and the errors.
async fn stop_of_twenty(asks: Asks, retry: RetryPolicy) -> (Duration, Vec<DeliveryError>) {
    let sender = Sender::builder().transport(asks).build().unwrap();
    let builder = Client::builder("http://receiver.test/")
        .retry(retry)
        .sender(sender);
    let (client, mut errors) = started(builder);
    for _ in 0..20 {
        client.notify("x").unwrap();
    }
    let began = Instant::now();
    client.stop().await;
    let took = began.elapsed();
    let errors = std::iter::from_fn(|| errors.try_recv().ok());
    (took, errors.map(|(_, error)| error).collect())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_no_requests_for_a_day_does_not_hold_up_a_stop() {
    for status in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        // It puts off its own message, and no other.
        StatusCode::INTERNAL_SERVER_ERROR,
    ] {
        let asks = Asks {
            status,
            seconds: 86_400,
            times: u32::MAX.into(),
        };
        let (took, errors) = stop_of_twenty(asks, RetryPolicy::default()).await;
        assert!(took < Duration::from_secs(10), "{status}: {took:?}");
        assert_eq!(errors.len(), 20, "{status}");
        for error in errors {
            assert!(matches!(error.cause(), DeliveryErrorCause::RetryAfter));
            assert!(error.is_retryable() && error.blocked_until().is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_an_endpoint_that_asks_for_a_moment() {
    let asks = Asks {
        status: StatusCode::TOO_MANY_REQUESTS,
        seconds: 2,
        times: 1.into(),
    };
    let (took, errors) = stop_of_twenty(asks, RetryPolicy::default()).await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(errors.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_a_moment_again_and_again_does_not_hold_up_a_stop() {
    let asks = Asks {
        status: StatusCode::TOO_MANY_REQUESTS,
        seconds: 2,
        times: u32::MAX.into(),
    };
    let (took, errors) = stop_of_twenty(asks, at_once(100)).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(errors.len(), 20);
}
