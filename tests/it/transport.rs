//! What can be set about how requests are sent.

mod causes;
mod handed_in;
mod idle;
mod local;
mod over_reqwest;
mod proxy;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls;

use std::time::Duration;

use jiff::Timestamp;
use tidings::signing::{Secret, Signer, TimestampedSigner, TimestampedVerifier, Verifier};
use tidings::{
    Attempt, Classifier, Endpoint, EndpointBuilder, ErrorKind, HttpVersions, Message, Sender,
    Verdict,
};
use tidings_test_support::{Behaviour, Receiver, Reply, Unreachable};

use crate::hostile::resolver::{Names, named};
use crate::support::receiver;

async fn attempt_by(sender: &Sender, endpoint: EndpointBuilder) -> Attempt {
    let message = Message::from("hello").with_id("msg_hello").unwrap();
    let endpoint = endpoint.build().unwrap();
    sender.attempt(&endpoint, &message, 1).await
}

async fn attempt(endpoint: EndpointBuilder) -> Attempt {
    attempt_by(&Sender::builder().build().unwrap(), endpoint).await
}

/// The values of a header in the last request.
fn values(receiver: &Receiver, name: &str) -> Vec<String> {
    let request = receiver.requests().pop().unwrap();
    let values = request.head.headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn regression_the_id_is_on_every_request_signed_or_not() {
    let receiver = receiver(Reply::ok()).await;
    let endpoint = || Endpoint::builder(receiver.url("/"));
    let timestamped = TimestampedSigner::new("key").unwrap();
    for endpoint in [
        endpoint(),
        endpoint().signer(timestamped),
        endpoint().secret(Secret::generate()),
    ] {
        assert_eq!(attempt(endpoint).await.verdict(), Verdict::Delivered);
        assert_eq!(values(&receiver, "webhook-id"), ["msg_hello"]);
    }
}

#[tokio::test]
async fn several_signers_sign_one_request() {
    let receiver = receiver(Reply::ok()).await;
    let secret = Secret::generate();
    let names = ["x-host", "x-length"].map(|name| name.parse().unwrap());
    let custom = Signer::custom(names, |input| {
        let host = input.url.host_str().unwrap_or_default().parse()?;
        Ok([host, input.body.len().into()])
    });
    let endpoint = Endpoint::builder(receiver.url("/"))
        .secret(secret.clone())
        .signer(TimestampedSigner::new("key").unwrap())
        .signer(custom);
    assert_eq!(attempt(endpoint).await.verdict(), Verdict::Delivered);

    let request = receiver.requests().pop().unwrap();
    let (headers, now) = (&request.head.headers, Timestamp::now());
    let standard = Verifier::new(secret);
    standard.verify(headers, &request.body, now).unwrap();
    let timestamped = TimestampedVerifier::new("key").unwrap();
    timestamped.verify(headers, &request.body, now).unwrap();
    assert_eq!(values(&receiver, "x-host"), ["127.0.0.1"]);
    assert_eq!(values(&receiver, "x-length"), ["5"]);
}

#[tokio::test]
async fn a_signer_of_the_caller_sees_no_signature_and_replaces_a_header() {
    let receiver = receiver(Reply::ok()).await;
    let names = [http::header::USER_AGENT, "x-seen".parse().unwrap()];
    let custom = Signer::custom(names, |input| {
        let seen: Vec<_> = input.headers.keys().map(http::HeaderName::as_str).collect();
        Ok(["signed/1".parse()?, seen.join(",").parse()?])
    });
    let endpoint = Endpoint::builder(receiver.url("/"))
        .header("x-team", "shop")
        .secret(Secret::generate())
        .signer(custom);
    assert_eq!(attempt(endpoint).await.verdict(), Verdict::Delivered);
    assert_eq!(values(&receiver, "user-agent"), ["signed/1"]);
    assert_eq!(values(&receiver, "accept"), ["*/*"]);
    let seen = values(&receiver, "x-seen");
    let mut seen: Vec<_> = seen[0].split(',').collect();
    seen.sort_unstable();
    assert_eq!(seen, ["content-type", "webhook-id", "x-team"]);
}

#[tokio::test]
async fn a_signer_that_fails_or_panics_sends_nothing_and_is_local_trouble() {
    let receiver = receiver(Reply::ok()).await;
    let name = || ["x-signature".parse().unwrap()];
    for signer in [
        Signer::custom(name(), |_| Err("no key".into())),
        Signer::custom(name(), |_| panic!("this is a test")),
    ] {
        let attempt = attempt(Endpoint::builder(receiver.url("/")).signer(signer)).await;
        assert_eq!(attempt.error_kind(), Some(ErrorKind::Local));
        assert_eq!(attempt.verdict(), Verdict::Retryable);
        assert!(!attempt.is_ambiguous());
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn each_endpoint_has_its_classifier() {
    let receiver = receiver(Reply::new(http::StatusCode::NOT_FOUND)).await;
    let endpoint = || Endpoint::builder(receiver.url("/"));
    for (endpoint, verdict) in [
        (endpoint(), Verdict::Permanent),
        (
            endpoint().classifier(Classifier::standard_webhooks()),
            Verdict::Retryable,
        ),
        (
            endpoint().classifier(Classifier::new(|_| Verdict::Delivered)),
            Verdict::Delivered,
        ),
    ] {
        let attempt = attempt(endpoint).await;
        assert_eq!(attempt.verdict(), verdict);
        let json = serde_json::to_value(&attempt).unwrap();
        assert_eq!(json["verdict"], serde_json::to_value(verdict).unwrap());
    }
}

#[tokio::test]
async fn regression_an_empty_body_that_found_no_connection_leaves_nothing_in_doubt() {
    let unreachable = Unreachable::silent().await.unwrap();
    let sender = Sender::builder()
        .connect_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let endpoint = Endpoint::builder(unreachable.url("/")).timeout(Duration::from_millis(300));
    let endpoint = endpoint.build().unwrap();
    let attempt = sender.attempt(&endpoint, &Message::from(""), 1).await;
    let reported = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::ConnectTimeout), false));
}

#[tokio::test]
async fn a_name_whose_address_did_not_connect_before_the_deadline_is_resolved_anew() {
    let unreachable = Unreachable::silent().await.unwrap();
    let address = unreachable.address();
    let names = Names::new(&[&[&address.ip().to_string()]]);
    let sender = Sender::builder()
        .resolver(names.clone())
        .connect_timeout(Duration::from_secs(60));
    let sender = sender.build().unwrap();
    for (lookups, body) in [(1, ""), (2, "x"), (3, "")] {
        let endpoint = Endpoint::builder(named(address)).timeout(Duration::from_millis(200));
        let endpoint = endpoint.build().unwrap();
        let attempt = sender.attempt(&endpoint, &Message::from(body), 1).await;
        assert_eq!(attempt.error_kind(), Some(ErrorKind::ConnectTimeout));
        assert_eq!(names.asked(), lookups);
    }
}

#[tokio::test]
async fn an_empty_body_whose_request_gets_no_response_may_have_arrived() {
    let receiver = receiver(Behaviour::NeverReply).await;
    let endpoint = Endpoint::builder(receiver.url("/")).timeout(Duration::from_secs(1));
    let sender = Sender::builder().build().unwrap();
    let endpoint = endpoint.build().unwrap();
    let attempt = sender.attempt(&endpoint, &Message::from(""), 1).await;
    let reported = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::ResponseTimeout), true));
}

#[tokio::test]
async fn http2_alone_is_not_spoken_by_a_receiver_of_http1() {
    let receiver = receiver(Reply::ok()).await;
    for (versions, delivers) in [
        (HttpVersions::Negotiated, true),
        (HttpVersions::Http1, true),
        (HttpVersions::Http2, false),
    ] {
        let sender = Sender::builder().http_versions(versions).build().unwrap();
        let endpoint = Endpoint::builder(receiver.url("/")).timeout(Duration::from_secs(2));
        let attempt = attempt_by(&sender, endpoint).await;
        let delivered = attempt.verdict() == Verdict::Delivered;
        assert_eq!(delivered, delivers, "{versions:?}: {attempt:?}");
    }
}

#[tokio::test]
async fn an_ipv6_address_in_a_url_is_called() {
    let receiver = Receiver::builder(Reply::ok())
        .with_address("[::1]:0".parse().unwrap())
        .start()
        .await
        .unwrap();
    let attempt = attempt(Endpoint::builder(receiver.url("/hooks"))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    let host = receiver.address().to_string();
    assert_eq!(values(&receiver, "host"), [host]);
}

/// Other systems have no second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_come_from_the_local_address_that_is_set() {
    let v6 = std::net::Ipv6Addr::LOCALHOST.into();
    for local in [vec![[127, 0, 0, 2].into()], vec![v6, [127, 0, 0, 3].into()]] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let builder = local
            .iter()
            .copied()
            .fold(Sender::builder(), |builder, address| {
                builder.local_address(address)
            });
        let sender = builder.build().unwrap();
        let accepting = async { listener.accept().await.unwrap().1 };
        let endpoint = Endpoint::builder(url);
        let (peer, _) = tokio::join!(accepting, attempt_by(&sender, endpoint));
        assert_eq!(Some(&peer.ip()), local.last());
    }
}

#[tokio::test]
async fn a_local_address_that_the_machine_does_not_have_is_its_own_trouble() {
    let receiver = receiver(Reply::ok()).await;
    let elsewhere = std::net::IpAddr::from([192, 0, 2, 1]);
    let builders = [
        Sender::builder().local_address(elsewhere),
        #[cfg(feature = "reqwest")]
        Sender::builder().http_client(reqwest::Client::builder().local_address(elsewhere)),
    ];
    for builder in builders {
        let sender = builder.build().unwrap();
        let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        assert_eq!(attempt.error_kind(), Some(ErrorKind::Local), "{attempt:?}");
    }
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    for (builder, field) in [
        (
            Sender::builder().connect_timeout(Duration::ZERO),
            "connect_timeout",
        ),
        (
            Sender::builder().idle_timeout(Duration::ZERO),
            "idle_timeout",
        ),
        (Sender::builder().proxy("socks5://proxy"), "proxy"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[tokio::test]
async fn debug_output_contains_no_key() {
    let builder = Sender::builder().proxy("http://user:hidden@127.0.0.1:1");
    let shown = format!("{builder:?}");
    assert!(!shown.contains("hidden"), "{shown}");
    let shown = format!("{:?}", builder.build().unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
}
