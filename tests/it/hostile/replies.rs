//! Receivers whose replies are hard to read.

use std::time::Duration;

use http::StatusCode;
use tidings::{ErrorKind, MAX_RETRY_AFTER, Verdict};
use tidings_test_support::{Behaviour, Reply, catalogue};

use super::*;

#[tokio::test]
async fn gone_is_for_good() {
    let attempt = attempt(&receiver(Reply::gone()).await.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Gone);
}

#[tokio::test]
async fn a_wait_that_was_asked_for_is_read_capped_or_ignored() {
    let receiver = receiver(catalogue::script()).await;
    for (kind, value) in catalogue::RETRY_AFTER {
        let attempt = attempt(&receiver.url(&format!("/retry-after/{kind}"))).await;
        assert_eq!(attempt.status(), Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(attempt.verdict(), Verdict::Retryable);
        let expected = match *kind {
            "seconds" => Some(Duration::from_secs(2)),
            "huge" | "overflowing" | "future-date" => Some(MAX_RETRY_AFTER),
            "past-date" => Some(Duration::ZERO),
            _ => None,
        };
        assert_eq!(attempt.retry_after(), expected, "{kind}: {value}");
    }
}

#[tokio::test]
async fn of_several_waits_the_longest_counts() {
    let reply = Reply::retry_after("1")
        .with_header("retry-after", "soon")
        .with_header("retry-after", "120");
    let attempt = attempt(&receiver(reply).await.url("/")).await;
    assert_eq!(attempt.retry_after(), Some(Duration::from_secs(120)));
}

#[tokio::test]
async fn statuses_without_a_definition_are_judged_by_their_class() {
    for (code, verdict) in [
        (299, Verdict::Delivered),
        (399, Verdict::Permanent),
        (499, Verdict::Permanent),
        (599, Verdict::Retryable),
        (999, Verdict::Retryable),
    ] {
        let raw = format!("HTTP/1.1 {code} \r\ncontent-length: 0\r\n\r\n");
        let receiver = receiver(Behaviour::Raw(raw.into())).await;
        assert_eq!(
            attempt(&receiver.url("/")).await.verdict(),
            verdict,
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_reply_that_contradicts_itself_is_no_http() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
    ] {
        let receiver = receiver(Behaviour::Raw(head.into())).await;
        assert_ambiguous(&attempt(&receiver.url("/")).await, ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn an_upgrade_that_was_not_asked_for_is_a_failure() {
    let raw = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let attempt = attempt(&receiver(Behaviour::Raw(raw.into())).await.url("/")).await;
    assert_ne!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
}

/// The catalogue is what other senders are measured by; this one passes all of it.
#[tokio::test]
async fn every_path_of_the_catalogue_ends_as_it_should() {
    let receiver = receiver(catalogue::script()).await;
    let sender = sender();
    for entry in catalogue::ENTRIES {
        let deadline = match entry.path() {
            "/never-replies" | "/drips-head" => SHORT,
            "/endless-interim" if !IS_BUILT_IN => SHORT,
            _ => PATIENT,
        };
        let endpoint = Endpoint::builder(receiver.url(entry.example())).timeout(deadline);
        let attempt = attempt_by(&sender, endpoint).await;
        let expected = match entry.path() {
            "/redirect" | "/redirect-loop" | "/redirect-to-metadata" => Verdict::Permanent,
            "/gone" => Verdict::Gone,
            _ if entry.wanted().starts_with("success") || entry.example() == "/slow/0" => {
                Verdict::Delivered
            }
            _ => Verdict::Retryable,
        };
        assert_eq!(attempt.verdict(), expected, "{}: {attempt:?}", entry.path());
    }
}
