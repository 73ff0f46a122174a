//! Names that lead nowhere, elsewhere, or to a new place each time.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidings::{
    AddressPolicy, BlockedAddress, Endpoint, ErrorKind, Resolve, ResolveError, Resolved, Sender,
    Verdict,
};
use tidings_test_support::{Answer, Unreachable};

use super::built_in::attempt;
use super::*;

/// Gives its answers in turn, the last one for ever.
#[derive(Clone)]
pub(super) struct Names(Arc<Mutex<(Vec<Vec<IpAddr>>, usize)>>);

impl Names {
    pub(super) fn new(answers: &[&[&str]]) -> Self {
        let address = |text: &&str| text.parse().unwrap();
        let answer = |answer: &&[&str]| answer.iter().map(address).collect();
        Self(Arc::new(Mutex::new((
            answers.iter().map(answer).collect(),
            0,
        ))))
    }

    /// How many lookups there were.
    pub(super) fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        let mut state = self.0.lock().unwrap();
        let (answers, asked) = &mut *state;
        let answer = answers[(*asked).min(answers.len() - 1)].clone();
        *asked += 1;
        Ok(answer.into_iter().collect())
    }
}

/// The URL of a name that only an injected resolver knows.
pub(super) fn named(address: SocketAddr) -> String {
    format!("http://hooks.example.com:{}/", address.port())
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_retryable_dns_error() {
    let attempt = attempt("http://nowhere.invalid/").await;
    assert_nothing_left(&attempt, ErrorKind::Dns);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_retryable_dns_error_and_asked_for_once() {
    let names = Names::new(&[&[]]);
    let sender = Sender::builder().resolver(names.clone()).build().unwrap();
    for _ in 0..3 {
        let attempt = attempt_by(&sender, Endpoint::builder("http://hooks.example.com/")).await;
        assert_nothing_left(&attempt, ErrorKind::Dns);
    }
    assert_eq!(names.asked(), 1);
}

#[tokio::test]
async fn a_name_that_moved_is_found_by_the_next_attempt() {
    let receiver = receiver(Answer::ok()).await;
    let names = Names::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let sender = Sender::builder().resolver(names.clone()).build().unwrap();
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
    let receiver = receiver(Answer::ok()).await;
    let names = Names::new(&[&["127.0.0.2", "::1", "127.0.0.1"]]);
    let sender = Sender::builder().resolver(names).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(named(receiver.address()))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
}

#[tokio::test]
async fn an_answer_that_is_bound_again_to_an_inner_address_is_never_connected_to() {
    let receiver = receiver(Answer::ok()).await;
    let names = Names::new(&[&["127.0.0.1"], &["1.1.1.1", "127.0.0.1"]]);
    let sender = Sender::builder()
        .resolver(names.clone())
        .address_policy(AddressPolicy::PublicOnly)
        .build()
        .unwrap();
    // The lookup of a registration may have passed; this one, of the connection, does not.
    let url = named(receiver.address());
    let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::BlockedAddress));
    assert_eq!(attempt.verdict(), Verdict::Permanent);
    assert_eq!((receiver.connections(), names.asked()), (0, 1));
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn an_injected_resolver_does_not_go_with_a_client_of_ones_own() {
    let builder = Sender::builder()
        .resolver(Names::new(&[&[]]))
        .http_client(reqwest::Client::builder());
    assert_eq!(builder.build().unwrap_err().field(), "http_client");
}

#[tokio::test]
async fn the_address_that_was_refused_is_named_in_the_cause() {
    let names = Names::new(&[&["169.254.169.254"]]);
    let sender = Sender::builder()
        .resolver(names)
        .address_policy(AddressPolicy::PublicOnly)
        .build()
        .unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder("http://metadata.example.com/")).await;
    let mut cause: &dyn Error = attempt.result.as_ref().unwrap_err();
    while let Some(source) = cause.source() {
        cause = source;
    }
    let blocked = cause.downcast_ref::<BlockedAddress>().unwrap();
    assert_eq!(blocked.address().unwrap().to_string(), "169.254.169.254");
}

#[tokio::test]
async fn a_connection_that_fails_after_the_lookup_is_told_from_a_name_that_fails() {
    let unreachable = Unreachable::refusing().unwrap();
    let names = Names::new(&[&["127.0.0.1"]]);
    let sender = Sender::builder().resolver(names).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(named(unreachable.address()))).await;
    assert_nothing_left(&attempt, ErrorKind::Refused);
}
