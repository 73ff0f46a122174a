//! Names that lead nowhere, elsewhere, or to a new place each time.

use tidings::{Endpoint, ErrorKind, Verdict};
use tidings_test_support::{Reply, Unreachable};

use super::*;

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_retryable_dns_error() {
    let attempt = attempt("http://nowhere.invalid/").await;
    assert_nothing_left(&attempt, ErrorKind::Dns);
}

#[tokio::test]
async fn a_name_without_an_address_is_retryable_and_leaves_nothing_in_doubt() {
    let names = Names::new(&[&[]]);
    let sender = resolving(names.clone()).build().unwrap();
    // reqwest says only that there is nothing to connect to.
    let kind = if IS_BUILT_IN {
        ErrorKind::Dns
    } else {
        ErrorKind::Connect
    };
    for _ in 0..3 {
        let attempt = attempt_by(&sender, Endpoint::builder("http://hooks.example.com/")).await;
        assert_nothing_left(&attempt, kind);
    }
    // reqwest keeps no results.
    assert_eq!(names.asked(), if IS_BUILT_IN { 1 } else { 3 });
}

#[tokio::test]
async fn a_name_that_moved_is_found_by_the_next_attempt() {
    let receiver = receiver(Reply::ok()).await;
    let names = Names::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let sender = resolving(names.clone()).build().unwrap();
    let endpoint = || Endpoint::builder(named(receiver.address()));
    // The first address refuses connections: the cached one is not used any longer.
    let first = attempt_by(&sender, endpoint()).await;
    assert_nothing_left(&first, ErrorKind::Refused);
    let second = attempt_by(&sender, endpoint()).await;
    assert_eq!(second.verdict(), Verdict::Delivered);
    assert_eq!(names.asked(), 2);
}

#[tokio::test]
async fn of_several_addresses_one_that_works_is_enough() {
    let receiver = receiver(Reply::ok()).await;
    let names = Names::new(&[&["127.0.0.2", "::1", "127.0.0.1"]]);
    let sender = resolving(names).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(named(receiver.address()))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
}

#[tokio::test]
async fn a_connection_that_fails_after_the_lookup_is_distinguished_from_a_name_that_fails() {
    let unreachable = Unreachable::refusing().unwrap();
    let names = Names::new(&[&["127.0.0.1"]]);
    let sender = resolving(names).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(named(unreachable.address()))).await;
    assert_nothing_left(&attempt, ErrorKind::Refused);
}
