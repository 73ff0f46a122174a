//! Receivers that a sender must survive, and what it must make of each.
//!
//! Every test is one way for a receiver to fail, to stall, to flood or to lie. It is named by the
//! right behaviour of the sender, and it waits for what happens, not for the clock; where a
//! deadline has to pass it is a short one, and what comes after it is far away.

mod addresses;
pub(crate) mod resolver;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod trust;

use std::time::Duration;

use tidings::{
    Attempt, Endpoint, EndpointBuilder, ErrorKind, Message, Sender, SenderBuilder, Verdict,
};

use crate::support::receiver;
use resolver::{Names, named};

/// Long enough for anything that is not meant to time out, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// Short enough to wait for, and long enough for a request to be made and sent on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// What every transport must survive, over the built-in one.
#[path = "hostile"]
mod built_in {
    mod connections;
    mod floods;
    mod helpers;
    mod names;
    mod recovery;
    mod redirects;
    mod replies;
    mod stalls;
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    mod tls;

    use super::*;
    pub(super) use helpers::*;

    const IS_BUILT_IN: bool = true;

    fn builder() -> SenderBuilder {
        Sender::builder()
    }

    fn resolving(names: Names) -> SenderBuilder {
        builder().resolver(names)
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(super) fn trusting(pem: &str) -> SenderBuilder {
        builder().root_certificates(pem)
    }
}

/// The same over reqwest.
#[cfg(feature = "reqwest")]
#[path = "hostile"]
#[allow(
    clippy::duplicate_mod,
    reason = "the same tests over another transport"
)]
mod over_reqwest {
    mod connections;
    mod floods;
    mod helpers;
    mod names;
    mod recovery;
    mod redirects;
    mod replies;
    mod stalls;
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    mod tls;

    use super::*;
    use helpers::*;

    const IS_BUILT_IN: bool = false;

    fn builder() -> SenderBuilder {
        over(reqwest::Client::builder())
    }

    fn resolving(names: Names) -> SenderBuilder {
        over(reqwest::Client::builder().dns_resolver(names))
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn trusting(pem: &str) -> SenderBuilder {
        let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        over(reqwest::Client::builder().tls_certs_merge([certificate]))
    }

    fn over(client: reqwest::ClientBuilder) -> SenderBuilder {
        Sender::builder().http_client(client)
    }
}

async fn attempt_by(sender: &Sender, endpoint: EndpointBuilder) -> Attempt {
    let message = Message::from("hello").with_id("msg_hello").unwrap();
    let endpoint = endpoint.build().unwrap();
    sender.attempt(&endpoint, &message, 1).await
}

/// The attempt failed in this way, is to be repeated, and cannot have reached the endpoint.
#[track_caller]
fn assert_nothing_left(attempt: &Attempt, kind: ErrorKind) {
    assert_failed(attempt, kind, false);
}

/// The attempt failed in this way, is to be repeated, and may have reached the endpoint.
#[track_caller]
fn assert_ambiguous(attempt: &Attempt, kind: ErrorKind) {
    assert_failed(attempt, kind, true);
}

#[track_caller]
fn assert_failed(attempt: &Attempt, kind: ErrorKind, ambiguous: bool) {
    let reported = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(reported, (Some(kind), ambiguous), "{attempt:?}");
    assert_eq!(attempt.verdict(), Verdict::Retryable);
}

/// What lies beneath the error, in words.
fn causes(attempt: &Attempt) -> String {
    attempt.result.as_ref().unwrap_err().cause()
}
