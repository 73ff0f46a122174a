//! Receivers that send a sender elsewhere.

use http::StatusCode;
use tidings::{AddressPolicy, Verdict};
use tidings_test_support::{Reply, Script};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn a_redirect_of_any_kind_is_recorded_and_not_followed() {
    let elsewhere = receiver(Reply::ok()).await;
    let target = elsewhere.url("/elsewhere");
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let status = StatusCode::from_u16(status).unwrap();
        let receiver = receiver(Reply::redirect(status, target.clone())).await;
        let attempt = attempt(&receiver.url("/")).await;
        assert_eq!(attempt.verdict(), Verdict::Permanent, "{status}");
        let reply = attempt.result.unwrap();
        assert_eq!(
            (reply.status, reply.location.as_deref()),
            (status, Some(&*target))
        );
        assert_eq!(receiver.requests().len(), 1);
    }
    assert_eq!(elsewhere.connections(), 0);
    // A connection there would have been noticed: one that is made by hand is.
    let _made = TcpStream::connect(elsewhere.address()).await.unwrap();
    elsewhere.connected(1).await;
}

#[tokio::test]
async fn a_loop_of_redirects_costs_one_request() {
    let receiver = receiver(Script::by(|head| {
        Reply::redirect(StatusCode::TEMPORARY_REDIRECT, head.target.clone()).into()
    }))
    .await;
    let attempt = attempt(&receiver.url("/again")).await;
    assert_eq!(attempt.result.unwrap().location.as_deref(), Some("/again"));
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_a_metadata_service_is_only_written_down() {
    let metadata = "http://169.254.169.254/latest/meta-data/";
    let receiver = receiver(Reply::redirect(StatusCode::FOUND, metadata)).await;
    let attempt = attempt(&receiver.url("/")).await;
    assert_eq!(attempt.verdict(), Verdict::Permanent);
    let location = attempt.result.unwrap().location.unwrap();
    assert_eq!(location, metadata);
    // A program that takes the new address over at its owner's word can check it.
    let url = location.parse().unwrap();
    assert!(AddressPolicy::PublicOnly.check_url(&url).is_err());
}

#[tokio::test]
async fn a_redirect_without_or_with_a_mangled_location_is_a_failure_too() {
    let without = Reply::new(StatusCode::FOUND);
    let attempt_without = attempt(&receiver(without).await.url("/")).await;
    assert_eq!(attempt_without.verdict(), Verdict::Permanent);
    assert_eq!(attempt_without.result.unwrap().location, None);

    let mangled = Reply::redirect(StatusCode::FOUND, &b"http://\xff\xfe/"[..]);
    let attempt_mangled = attempt(&receiver(mangled).await.url("/")).await;
    assert_eq!(attempt_mangled.verdict(), Verdict::Permanent);
    assert_eq!(
        attempt_mangled.result.unwrap().location.as_deref(),
        Some("http://\u{fffd}\u{fffd}/")
    );
}

#[tokio::test]
async fn a_location_of_any_length_is_cut() {
    let long = format!("/{}", "x".repeat(100_000));
    let attempt = attempt(
        &receiver(Reply::redirect(StatusCode::FOUND, long))
            .await
            .url("/"),
    )
    .await;
    let location = attempt.result.unwrap().location.unwrap();
    assert_eq!(location.len(), tidings::MAX_LOCATION_BYTES);
}

/// The first response of a receiver that redirects to itself is no success, although the second one
/// would be.
#[tokio::test]
async fn a_redirect_that_ends_where_it_began_is_no_success() {
    for status in [301, 302, 303, 307, 308] {
        let status = StatusCode::from_u16(status).unwrap();
        let receiver = receiver(Script::sequence(
            [Reply::redirect(status, "/hook")],
            Reply::ok(),
        ))
        .await;
        let attempt = attempt(&receiver.url("/hook")).await;
        assert_eq!(attempt.status(), Some(status), "{attempt:?}");
        assert_eq!(attempt.verdict(), Verdict::Permanent);
        assert_eq!(receiver.requests().len(), 1);
    }
}
