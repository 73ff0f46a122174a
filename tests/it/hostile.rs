//! Receivers that a sender must survive, and what it must make of each.
//!
//! Every test is one way for a receiver to fail, to stall, to flood or to lie. It is named by the
//! right behaviour of the sender, and it waits for what happens, not for the clock; where a
//! deadline has to pass it is a short one, and what comes after it is far away.

mod addresses;
mod answers;
mod connections;
mod floods;
mod names;
mod recovery;
mod redirects;
mod stalls;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls;

use std::time::Duration;

use tidings::{Attempt, Endpoint, EndpointBuilder, ErrorKind, Message, Sender, Verdict};

use crate::support::receiver;

/// Long enough for anything that is not meant to time out, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// Short enough to wait for, and long enough for a request to be made and sent on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

fn sender() -> Sender {
    let builder = Sender::builder().connect_timeout(PATIENT);
    builder.build().unwrap()
}

async fn attempt_by(sender: &Sender, endpoint: EndpointBuilder) -> Attempt {
    let message = Message::from("hello").with_id("msg_hello").unwrap();
    let endpoint = endpoint.build().unwrap();
    sender.attempt(&endpoint, &message, 1).await
}

/// One attempt that has all the time in the world.
async fn attempt(url: &str) -> Attempt {
    attempt_by(&sender(), Endpoint::builder(url).timeout(PATIENT)).await
}

/// One attempt with a short deadline.
async fn hasty_attempt(url: &str) -> Attempt {
    attempt_by(&sender(), Endpoint::builder(url).timeout(SHORT)).await
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
    let told = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(told, (Some(kind), ambiguous), "{attempt:?}");
    assert_eq!(attempt.verdict(), Verdict::Retryable);
}

/// What lies beneath the error, in words.
fn causes(attempt: &Attempt) -> String {
    attempt.result.as_ref().unwrap_err().cause()
}
