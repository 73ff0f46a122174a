//! Transports of the caller.

use std::sync::Mutex;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tidings::transport::{RequestBody, ResponseBody, TowerTransport, Transport};
use tidings::{AddressPolicy, AttemptError};
use tower_service::Service;

use super::*;

/// Replies with what it was sent.
#[derive(Debug, Default)]
struct Echo {
    uris: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Echo {
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        self.uris.lock().unwrap().push(request.uri().to_string());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = Response::new(ResponseBody::new(Full::new(body)));
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }
}

#[tokio::test]
async fn a_transport_of_ones_own_sends_the_request() {
    let sender = Sender::builder()
        .transport(Echo::default())
        .build()
        .unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder("http://example.com/hooks")).await;
    assert_eq!(attempt.status(), Some(StatusCode::ACCEPTED));
    assert_eq!(attempt.result.unwrap().body_head, "hello");
}

#[derive(Debug)]
struct Fails(ErrorKind, bool);

#[async_trait]
impl Transport for Fails {
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        if self.1 {
            request.into_body().collect().await.unwrap();
        }
        Err(AttemptError::new(self.0, "as the test wants"))
    }
}

#[tokio::test]
async fn what_a_transport_reports_is_ambiguous_once_it_has_read_the_body() {
    for (kind, has_read, ambiguous) in [
        (ErrorKind::Reset, true, true),
        (ErrorKind::Reset, false, false),
        (ErrorKind::Refused, true, false),
        (ErrorKind::Local, false, false),
    ] {
        let builder = Sender::builder().transport(Fails(kind, has_read));
        let sender = builder.build().unwrap();
        let attempt = attempt_by(&sender, Endpoint::builder("http://example.com/")).await;
        let reported = (attempt.error_kind(), attempt.is_ambiguous());
        assert_eq!(reported, (Some(kind), ambiguous));
    }
}

#[derive(Debug)]
struct Stalls;

#[async_trait]
impl Transport for Stalls {
    async fn send(
        &self,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_stalls_costs_the_deadline() {
    let sender = Sender::builder().transport(Stalls).build().unwrap();
    let endpoint = Endpoint::builder("http://example.com/").timeout(Duration::from_secs(7));
    let attempt = attempt_by(&sender, endpoint).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ConnectTimeout));
    assert_eq!(attempt.elapsed, Duration::from_secs(7));
}

/// A service that can be cloned, as those of `tower` are.
#[derive(Clone)]
struct Counts(u16);

impl Service<Request<RequestBody>> for Counts {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let error = match request.uri().path() {
            "/refused" => Some(std::io::ErrorKind::ConnectionRefused.into()),
            // This machine has no port left.
            "/short" => Some(std::io::ErrorKind::AddrNotAvailable.into()),
            // As a layer wraps the error of what is inside.
            "/wrapped" => Some(std::io::Error::other(AttemptError::new(
                ErrorKind::Local,
                "inside",
            ))),
            _ => None,
        };
        if let Some(error) = error {
            return std::future::ready(Err(error));
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(self.0).unwrap();
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn a_tower_service_is_a_transport() {
    let transport = TowerTransport::new(Counts(204));
    let sender = Sender::builder().transport(transport).build().unwrap();
    let ok = attempt_by(&sender, Endpoint::builder("http://example.com/")).await;
    assert_eq!(ok.status(), Some(StatusCode::NO_CONTENT));
    for (path, kind) in [
        ("refused", ErrorKind::Refused),
        ("short", ErrorKind::Local),
        ("wrapped", ErrorKind::Local),
    ] {
        let endpoint = Endpoint::builder(format!("http://example.com/{path}"));
        let failed = attempt_by(&sender, endpoint).await;
        assert_eq!(failed.error_kind(), Some(kind), "{failed:?}");
        assert!(!failed.is_ambiguous());
    }
}

#[tokio::test]
async fn a_transport_takes_no_setting_that_it_could_not_keep() {
    let builder = || Sender::builder().transport(Echo::default());
    for (builder, field) in [
        (
            builder().address_policy(AddressPolicy::PublicOnly),
            "transport",
        ),
        (builder().root_certificates("x"), "transport"),
        (builder().proxy("http://127.0.0.1:1"), "transport"),
        (builder().max_idle_connections(1), "transport"),
        (builder().local_address([127, 0, 0, 1].into()), "transport"),
        (
            builder().connect_timeout(Duration::from_secs(1)),
            "connect_timeout",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn regression_the_connect_timeout_applies_to_reqwest() {
    let unreachable = Unreachable::silent().await.unwrap();
    let sender = Sender::builder()
        .connect_timeout(Duration::from_millis(200))
        .http_client(reqwest::Client::builder())
        .build()
        .unwrap();
    let endpoint = Endpoint::builder(unreachable.url("/")).timeout(Duration::from_secs(60));
    let attempt = attempt_by(&sender, endpoint).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ConnectTimeout));
    assert!(attempt.elapsed < Duration::from_secs(30));
}

/// A client that would follow redirects takes the endpoint's headers, and its success, elsewhere.
#[cfg(feature = "reqwest")]
#[tokio::test]
async fn regression_reqwest_follows_no_redirect_whatever_its_builder_says() {
    let elsewhere = receiver(Reply::ok()).await;
    let redirects = reqwest::redirect::Policy::limited(10);
    let sender = Sender::builder()
        .http_client(reqwest::Client::builder().redirect(redirects))
        .build()
        .unwrap();
    for status in [301, 302, 303, 307, 308] {
        let status = StatusCode::from_u16(status).unwrap();
        let redirect = Reply::redirect(status, elsewhere.url("/elsewhere"));
        let receiver = receiver(redirect).await;
        let endpoint = Endpoint::builder(receiver.url("/")).header("x-api-key", "hidden");
        let attempt = attempt_by(&sender, endpoint).await;
        assert_eq!(attempt.status(), Some(status), "{attempt:?}");
        assert_eq!(attempt.verdict(), Verdict::Permanent);
    }
    assert_eq!(elsewhere.connections(), 0);
}
