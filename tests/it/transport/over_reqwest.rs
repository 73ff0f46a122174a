//! What a failure means when it comes through another HTTP client.
#![cfg(all(feature = "reqwest", any(feature = "rustls", feature = "native-tls")))]

use std::error::Error as StdError;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use http::StatusCode;
use tidings_test_support::Tls;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tower_layer::Layer;
use tower_service::Service;

use super::*;

fn over(client: reqwest::ClientBuilder) -> Sender {
    let builder = Sender::builder().connect_timeout(Duration::from_secs(60));
    builder.http_client(client).build().unwrap()
}

/// The attempt failed in this way, is to be repeated, and cannot have reached the endpoint.
#[track_caller]
fn assert_kind(attempt: &Attempt, kind: ErrorKind, case: &str) {
    assert_eq!(attempt.error_kind(), Some(kind), "{case}: {attempt:?}");
    assert_eq!(attempt.verdict(), Verdict::Retryable, "{case}: {attempt:?}");
    assert!(!attempt.is_ambiguous(), "{case}: {attempt:?}");
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_told_from_one_that_breaks_off_the_handshake() {
    let sender = over(reqwest::Client::builder());
    let refusing = Unreachable::refusing().unwrap();
    let (closing, _closing) = breaking_off(false).await;
    let (resetting, _resetting) = breaking_off(true).await;
    let plain = receiver(Reply::ok()).await;
    let unknown = Receiver::builder(Reply::ok()).with_tls(Tls::UnknownAuthority);
    let unknown = unknown.start().await.unwrap();
    let secured = |url: String| url.replace("http:", "https:");
    for (case, url, kind) in [
        ("refused", refusing.url("/"), ErrorKind::Refused),
        ("refused", secured(refusing.url("/")), ErrorKind::Refused),
        ("closed", closing, ErrorKind::Tls),
        ("reset", resetting, ErrorKind::Tls),
        ("no TLS", plain.https_url("/"), ErrorKind::Tls),
        ("certificate", unknown.url("/"), ErrorKind::Tls),
    ] {
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_kind(&attempt, kind, case);
    }
    assert!(plain.requests().is_empty() && unknown.requests().is_empty());
}

/// The `https` URL of a receiver that ends each connection once a handshake has begun, by a close
/// or by a reset.
async fn breaking_off(resets: bool) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The whole first message: what is left unread would turn a close into a reset.
            let mut hello = [0; 16 * 1024];
            let length = stream.read(&mut hello).await.unwrap();
            assert!(
                length > 0,
                "a handshake begins with a message of the client"
            );
            if resets {
                stream.set_zero_linger().unwrap();
            }
        }
    });
    (url, AbortOnDropHandle::new(task))
}

/// Resolves every name in one way.
#[derive(Clone, Copy)]
enum Lookup {
    TimesOut,
    IsRefused,
    FindsNoAddress,
}

impl reqwest::dns::Resolve for Lookup {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let failed = |kind| Err(io::Error::from(kind).into());
        Box::pin(ready(match self {
            Self::TimesOut => failed(io::ErrorKind::TimedOut),
            Self::IsRefused => failed(io::ErrorKind::ConnectionRefused),
            Self::FindsNoAddress => Ok(Box::new(std::iter::empty()) as _),
        }))
    }
}

#[tokio::test]
async fn regression_a_name_that_cannot_be_resolved_is_no_failed_connection_or_handshake() {
    for (lookup, kind) in [
        (Lookup::TimesOut, ErrorKind::Dns),
        (Lookup::IsRefused, ErrorKind::Dns),
        // reqwest says only that there is nothing to connect to.
        (Lookup::FindsNoAddress, ErrorKind::Connect),
    ] {
        let sender = over(reqwest::Client::builder().dns_resolver(lookup));
        for url in ["http://hooks.example.com/", "https://hooks.example.com/"] {
            let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
            assert_kind(&attempt, kind, url);
        }
    }
    let sender = over(reqwest::Client::builder());
    for url in ["http://nowhere.invalid/", "https://nowhere.invalid/"] {
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_kind(&attempt, ErrorKind::Dns, url);
    }
}

#[tokio::test]
async fn regression_a_proxy_is_not_taken_for_a_failed_handshake_of_the_endpoint() {
    let through = |proxy: String| {
        let proxy = reqwest::Proxy::all(proxy).unwrap();
        over(reqwest::Client::builder().proxy(proxy))
    };
    let endpoint = || Endpoint::builder("https://hooks.example.com/");

    let unreachable = Unreachable::refusing().unwrap();
    let refused = attempt_by(&through(unreachable.url("")), endpoint()).await;
    assert_kind(&refused, ErrorKind::Local, "refused");
    let unknown = attempt_by(&through("http://nowhere.invalid".to_owned()), endpoint()).await;
    assert_kind(&unknown, ErrorKind::Local, "unknown");

    for (status, kind) in [
        (StatusCode::BAD_GATEWAY, ErrorKind::Connect),
        (StatusCode::PROXY_AUTHENTICATION_REQUIRED, ErrorKind::Local),
    ] {
        let head = format!("HTTP/1.1 {status}\r\n\r\n");
        let proxy = receiver(Behaviour::Raw(head.into())).await;
        let attempt = attempt_by(&through(proxy.url("")), endpoint()).await;
        assert_kind(&attempt, kind, status.as_str());
    }
    let proxy = receiver(Behaviour::HangUp).await;
    let attempt = attempt_by(&through(proxy.url("")), endpoint()).await;
    assert_kind(&attempt, ErrorKind::Connect, "closed");
}

/// A layer around the connector whose every connection fails with an error of the system.
#[derive(Clone, Copy)]
struct Failing(i32);

#[derive(Clone)]
struct FailingConnector<S>(S, i32);

impl<S> Layer<S> for Failing {
    type Service = FailingConnector<S>;

    fn layer(&self, connector: S) -> Self::Service {
        FailingConnector(connector, self.0)
    }
}

impl<S, R> Service<R> for FailingConnector<S>
where
    S: Service<R, Error = Box<dyn StdError + Send + Sync>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Ready<Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, _destination: R) -> Self::Future {
        ready(Err(io::Error::from_raw_os_error(self.1).into()))
    }
}

#[cfg(unix)]
#[tokio::test]
async fn errors_of_the_system_have_their_kind_for_either_scheme() {
    for (number, kind) in [
        (libc::EMFILE, ErrorKind::Local),
        (libc::ENFILE, ErrorKind::Local),
        (libc::ENOBUFS, ErrorKind::Local),
        (libc::ENOMEM, ErrorKind::Local),
        (libc::EADDRNOTAVAIL, ErrorKind::Local),
        (libc::ENETDOWN, ErrorKind::Local),
        (libc::ENETUNREACH, ErrorKind::Connect),
        (libc::EACCES, ErrorKind::Connect),
        (libc::ETIMEDOUT, ErrorKind::ConnectTimeout),
        (libc::ECONNREFUSED, ErrorKind::Refused),
        (libc::EHOSTUNREACH, ErrorKind::Connect),
        (libc::EINVAL, ErrorKind::Connect),
        // What a handshake may meet.
        (libc::ECONNRESET, ErrorKind::Tls),
        (libc::ECONNABORTED, ErrorKind::Tls),
        (libc::EPIPE, ErrorKind::Tls),
    ] {
        let sender = over(reqwest::Client::builder().connector_layer(Failing(number)));
        let of_plain = match kind {
            ErrorKind::Tls => ErrorKind::Connect,
            kind => kind,
        };
        for (scheme, kind) in [("http", of_plain), ("https", kind)] {
            let url = format!("{scheme}://127.0.0.1:1/");
            let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
            assert_kind(&attempt, kind, &format!("{number} {scheme}"));
        }
    }
}
