//! URLs and names that lead inside. Only the built-in transport can keep an address policy: reqwest
//! looks names up by itself, and a sender over it is not built beside a policy.

use std::error::Error;
use std::process::Command;

use tidings::{AddressPolicy, BlockedAddress, Endpoint, ErrorKind, Sender, Verdict};
use tidings_test_support::{Receiver, Reply};

use super::built_in::attempt;
use super::resolver::{Names, named};
use super::*;

fn guarded() -> Sender {
    Sender::builder()
        .address_policy(AddressPolicy::PublicOnly)
        .build()
        .unwrap()
}

#[tokio::test]
async fn no_spelling_of_an_inner_address_is_connected_to() {
    let receiver = receiver(Reply::ok()).await;
    let port = receiver.address().port();
    let sender = guarded();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "127.0.0.1.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "%6cocalhost",
        "ⓛocalhost",
        "①②⑦.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let attempt = attempt_by(&sender, Endpoint::builder(&url).timeout(PATIENT)).await;
        let kind = attempt.error_kind();
        // A name with a full stop at its end is one that not every system knows.
        let unknown = host == "localhost." && kind == Some(ErrorKind::Dns);
        assert!(
            kind == Some(ErrorKind::BlockedAddress) || unknown,
            "{url}: {attempt:?}"
        );
        assert!(!attempt.is_ambiguous());
    }
    assert_eq!(receiver.connections(), 0);
    // The receiver works: an open policy reaches it.
    assert_eq!(
        attempt(&receiver.url("/")).await.verdict(),
        Verdict::Delivered
    );
}

#[tokio::test]
async fn every_inner_address_that_a_name_can_lead_to_is_refused() {
    for address in [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "2606:4700::5efe:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2001::1",
        "2002:a00:1::",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        let sender = Sender::builder()
            .address_policy(AddressPolicy::PublicOnly)
            .resolver(Names::new(&[&[address]]))
            .build()
            .unwrap();
        let attempt = attempt_by(&sender, Endpoint::builder("http://hooks.example.com/")).await;
        assert_eq!(
            attempt.error_kind(),
            Some(ErrorKind::BlockedAddress),
            "{address}"
        );
        assert_eq!(attempt.verdict(), Verdict::Permanent);
    }
}

#[tokio::test]
async fn a_reply_that_is_bound_again_to_an_inner_address_is_never_connected_to() {
    let receiver = receiver(Reply::ok()).await;
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

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn an_injected_resolver_does_not_go_with_a_client_of_ones_own() {
    let builder = Sender::builder()
        .resolver(Names::new(&[&[]]))
        .http_client(reqwest::Client::builder());
    assert_eq!(builder.build().unwrap_err().field(), "http_client");
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_client_of_ones_own_cannot_undermine_the_policy() {
    let builder = Sender::builder()
        .address_policy(AddressPolicy::PublicOnly)
        .http_client(reqwest::Client::builder());
    assert_eq!(builder.build().unwrap_err().field(), "http_client");
}

/// The variables that programs take their proxy from.
const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

const TARGET: &str = "TIDINGS_TEST_TARGET";

/// A proxy would resolve names in the sender's place. The environment cannot be changed safely in a
/// running program, so this runs [`beside_a_proxy`] in one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_not_used_and_changes_no_verdict() {
    let proxy = receiver(Reply::ok()).await;
    let target: Receiver = receiver(Reply::ok()).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "hostile::addresses::beside_a_proxy"])
        .env(TARGET, target.address().to_string())
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env_remove("REQUEST_METHOD");
    for variable in PROXY_VARIABLES {
        command.env(variable, format!("http://{}", proxy.address()));
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_eq!(proxy.connections(), 0);
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
#[ignore = "a part of the test above, which gives it an environment"]
async fn beside_a_proxy() {
    let address = std::env::var(TARGET).unwrap().parse().unwrap();
    let names = Names::new(&[&["127.0.0.1"]]);
    let build = |policy| {
        let builder = Sender::builder().resolver(names.clone());
        builder.address_policy(policy).build().unwrap()
    };
    for url in [named(address), named(address).replace("http:", "https:")] {
        let endpoint = Endpoint::builder(&url);
        let attempt = attempt_by(&build(AddressPolicy::PublicOnly), endpoint).await;
        assert_eq!(
            attempt.error_kind(),
            Some(ErrorKind::BlockedAddress),
            "{url}"
        );
    }
    let attempt = attempt_by(
        &build(AddressPolicy::Any),
        Endpoint::builder(named(address)),
    )
    .await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
}
