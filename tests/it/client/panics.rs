//! Panics in the caller's code: each costs one attempt at most.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::Empty;
use tidings::retry::{Backoff, RetryPolicy};
use tidings::transport::{RequestBody, ResponseBody, Transport};
use tidings::{AttemptError, Resolve, ResolveError, Resolved};

use super::*;

#[derive(Debug)]
struct Panics;

impl Backoff for Panics {
    fn delay(&self, _failures: u32, _random: f64) -> Option<Duration> {
        panic!("this is a test")
    }
}

/// Panics once, and then finds the receiver.
struct PanicsOnce {
    has_panicked: AtomicBool,
    address: std::net::IpAddr,
}

#[async_trait]
impl Resolve for PanicsOnce {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        let panics = !self.has_panicked.swap(true, Ordering::SeqCst);
        assert!(!panics, "this is a test");
        Ok([self.address].into_iter().collect())
    }
}

/// Panics with its first request, and replies to the others.
#[derive(Default)]
struct TransportPanics {
    has_panicked: AtomicBool,
}

#[async_trait]
impl Transport for TransportPanics {
    async fn send(
        &self,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let panics = !self.has_panicked.swap(true, Ordering::SeqCst);
        assert!(!panics, "this is a test");
        Ok(Response::new(ResponseBody::new(Empty::new())))
    }
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_backoff_that_panics_ends_its_message_and_no_worker() {
    let server = server(&[500, 500, 200]).await;
    let builder = Client::builder(server.uri())
        .workers(1)
        .retry(RetryPolicy::new(Panics));
    let (client, mut errors) = started(builder);
    client.notify("first").unwrap();
    let error = client.deliver("second").await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    let (message, _) = errors.recv().await.unwrap();
    assert_eq!(message.body(), "first");
    client.deliver("third").await.unwrap();
    timeout(SOON, client.stop()).await.unwrap();
}

#[tokio::test]
async fn a_resolver_that_panics_costs_one_attempt_and_no_worker() {
    let receiver = receiver(Reply::ok()).await;
    let resolver = PanicsOnce {
        has_panicked: AtomicBool::new(false),
        address: receiver.address().ip(),
    };
    let sender = Sender::builder().resolver(resolver).build().unwrap();
    let url = format!("http://receiver.test:{}/", receiver.address().port());
    let builder = Client::builder(url)
        .workers(1)
        .retry(at_once(3))
        .sender(sender);
    let (client, _errors) = started(builder);
    let delivered = timeout(SOON, client.deliver("x")).await.unwrap().unwrap();
    let last = delivered.attempts.last().unwrap();
    assert_eq!(last.status(), Some(StatusCode::OK));
    assert!((1..=2).contains(&delivered.attempts.len()));
    client.deliver("y").await.unwrap();
    timeout(SOON, client.stop()).await.unwrap();
}

#[tokio::test]
async fn a_transport_that_panics_costs_one_attempt_and_no_worker() {
    let sender = Sender::builder().transport(TransportPanics::default());
    let builder = Client::builder("http://receiver.test/")
        .workers(1)
        .retry(at_once(3))
        .sender(sender.build().unwrap());
    let (client, _errors) = started(builder);
    let delivered = timeout(SOON, client.deliver("x")).await.unwrap().unwrap();
    let [first, last] = &delivered.attempts[..] else {
        panic!("{delivered:?}");
    };
    // Whether the request was sent is not known.
    assert_eq!(first.error_kind(), Some(ErrorKind::Local));
    assert!(first.is_ambiguous());
    assert_eq!(last.status(), Some(StatusCode::OK));
    timeout(SOON, client.stop()).await.unwrap();
}
