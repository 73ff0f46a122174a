//! What becomes of messages while the process may open no more files. It has a program of its own,
//! because the limit is one of the whole process.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rlimit::Resource;
use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::{Client, Endpoint, ErrorKind, Message, Sender, Verdict};
use tidings_test_support::{Receiver, Reply};
use tokio::sync::Mutex;

/// Held by the test that changes the limit of the process.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_lack_of_descriptors_closes_idle_connections_and_another_failure_does_not() {
    let _alone = ALONE.lock().await;
    let (kept, other) = (
        Receiver::start(Reply::ok()).await.unwrap(),
        Receiver::start(Reply::ok()).await.unwrap(),
    );
    let sender = Sender::builder().build().unwrap();
    let attempt = async |url: String| {
        let endpoint = Endpoint::new(url).unwrap();
        sender.attempt(&endpoint, &Message::from("x"), 1).await
    };
    assert_eq!(attempt(kept.url("/")).await.verdict(), Verdict::Delivered);

    let refused = attempt("http://127.0.0.1:1/".to_owned()).await;
    assert_eq!(refused.error_kind(), Some(ErrorKind::Refused));
    assert_eq!(attempt(kept.url("/")).await.verdict(), Verdict::Delivered);
    assert_eq!(kept.connections(), 1);

    let (soft, hard) = Resource::NOFILE.get().unwrap();
    let lowest = File::open("/dev/null").unwrap();
    let limit = u64::try_from(lowest.as_raw_fd()).unwrap();
    Resource::NOFILE.set(limit, hard).unwrap();
    let failed = attempt(other.url("/")).await;
    Resource::NOFILE.set(soft, hard).unwrap();
    assert_eq!(failed.error_kind(), Some(ErrorKind::Local));
    kept.closed(1).await;
}

#[tokio::test]
async fn regression_a_lack_of_descriptors_is_local_trouble_and_opens_no_circuit() {
    let _alone = ALONE.lock().await;
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let senders = [
        Sender::builder(),
        #[cfg(feature = "reqwest")]
        Sender::builder().http_client(reqwest::Client::builder()),
    ];
    for sender in senders {
        let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
        let client = Client::builder(receiver.url("/"))
            .sender(sender.build().unwrap())
            .circuit_breaker(breaker)
            .build()
            .unwrap();
        client.start();

        let (soft, hard) = Resource::NOFILE.get().unwrap();
        // The lowest free number: all below it are taken, and those above are not allowed.
        let lowest = File::open("/dev/null").unwrap();
        let limit = u64::try_from(lowest.as_raw_fd()).unwrap();
        Resource::NOFILE.set(limit, hard).unwrap();
        let failed = client.deliver("x").await;
        Resource::NOFILE.set(soft, hard).unwrap();

        let error = failed.unwrap_err();
        assert_eq!(error.attempts()[0].error_kind(), Some(ErrorKind::Local));
        assert!(error.is_retryable() && !error.attempts()[0].is_ambiguous());
        assert_eq!(client.circuit_state(), Some(CircuitState::Closed));
        client.deliver("x").await.unwrap();
    }
}
