use std::time::Duration;

use jiff::Timestamp;
use tidings::signing::{Secret, TimestampedSigner, TimestampedVerifier, Verifier};
use tidings::{Attempt, Endpoint, EndpointBuilder, Message, Phases, Sender, Verdict};
use tidings_test_support::{Behaviour, Receiver, Reply, Request};
use wiremock::matchers::{body_bytes, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Long enough for anything that is not meant to time out, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

async fn attempt_to(endpoint: EndpointBuilder) -> Attempt {
    let sender = Sender::builder().build().unwrap();
    let message = Message::from("hello");
    sender
        .attempt(&endpoint.build().unwrap(), &message, 1)
        .await
}

async fn attempt(url: &str, timeout: Duration) -> Attempt {
    attempt_to(Endpoint::builder(url).timeout(timeout)).await
}

#[tokio::test]
async fn one_post_with_the_exact_body_and_the_headers_is_sent() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/hooks"))
        .and(header("content-type", "text/plain; charset=utf-8"))
        .and(header("x-team", "billing"))
        .and(body_bytes("hello"))
        .respond_with(ResponseTemplate::new(202).set_body_string("thanks"))
        .expect(1)
        .mount(&server)
        .await;

    let endpoint = Endpoint::builder(format!("{}/hooks", server.uri())).header("x-team", "billing");
    let attempt = attempt_to(endpoint).await;

    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(attempt.number, 1);
    let reply = attempt.result.unwrap();
    assert_eq!(reply.status, 202);
    assert_eq!(reply.body_head, "thanks");
    let request = &server.received_requests().await.unwrap()[0];
    assert!(!request.headers.contains_key("accept-encoding"));
    assert!(!request.headers.contains_key("webhook-signature"));
    assert_eq!(request.headers["content-length"], "5");
}

#[tokio::test]
async fn headers_of_the_endpoint_take_the_place_of_the_default_ones() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    attempt(&receiver.url("/"), PATIENT).await;
    let own = Endpoint::builder(receiver.url("/"))
        .header("User-Agent", "billing/2")
        .header("accept", "application/json");
    attempt_to(own).await;
    let sent = |request: &Request, name| {
        let values = request.head.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (default, own) = (receiver.request(1).await, receiver.request(2).await);
    assert!(sent(&default, "user-agent")[0].starts_with("tidings/"));
    assert_eq!(sent(&default, "accept"), ["*/*"]);
    assert_eq!(sent(&own, "user-agent"), ["billing/2"]);
    assert_eq!(sent(&own, "accept"), ["application/json"]);
}

#[tokio::test]
async fn an_empty_body_is_sent_as_such() {
    let server = MockServer::start().await;
    Mock::given(body_bytes(""))
        .and(header("content-length", "0"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let sender = Sender::builder().build().unwrap();
    let endpoint = Endpoint::new(server.uri()).unwrap();
    let attempt = sender.attempt(&endpoint, &Message::from(""), 1).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
}

#[tokio::test]
async fn what_arrives_verifies_under_both_schemes() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let secret = Secret::generate();
    attempt_to(Endpoint::builder(server.uri()).secret(secret.clone())).await;
    let signer = TimestampedSigner::new("key").unwrap();
    attempt_to(Endpoint::builder(server.uri()).signer(signer)).await;

    let requests = server.received_requests().await.unwrap();
    let now = Timestamp::now();
    let genuine = Verifier::new(secret).verify(&requests[0].headers, &requests[0].body, now);
    assert!(genuine.unwrap().id.starts_with("msg_"));
    let verifier = TimestampedVerifier::new("key").unwrap();
    let genuine = verifier.verify(&requests[1].headers, &requests[1].body, now);
    assert!(genuine.is_ok());
}

#[tokio::test]
async fn statuses_are_judged_and_hints_are_kept() {
    for (status, verdict) in [
        (204, Verdict::Delivered),
        (400, Verdict::Permanent),
        (410, Verdict::Gone),
        (429, Verdict::Retryable),
        (503, Verdict::Retryable),
    ] {
        let server = MockServer::start().await;
        let reply = ResponseTemplate::new(status).insert_header("retry-after", "120");
        Mock::given(method("POST"))
            .respond_with(reply)
            .mount(&server)
            .await;
        let attempt = attempt(&server.uri(), PATIENT).await;
        assert_eq!(attempt.verdict(), verdict, "{status}");
        assert_eq!(attempt.retry_after(), Some(Duration::from_secs(120)));
        assert_eq!(attempt.result.unwrap().location, None);
    }
}

#[tokio::test]
async fn an_attempt_is_recorded_as_documented_json() {
    let server = MockServer::start().await;
    let reply = ResponseTemplate::new(503)
        .insert_header("retry-after", "7")
        .set_body_bytes(*b"no\xff");
    Mock::given(method("POST"))
        .respond_with(reply)
        .mount(&server)
        .await;
    let attempt = attempt(&server.uri(), PATIENT).await;
    let json = serde_json::to_value(&attempt).unwrap();
    assert_eq!(json["number"], 1);
    assert_eq!(json["verdict"], "retryable");
    assert_eq!(json["status"], 503);
    assert_eq!(json["retry_after_s"], 7);
    assert_eq!(json["body_head"], "no\u{fffd}");
    assert_eq!(json["ambiguous"], false);
    assert!(json["error"].is_null() && json["location"].is_null() && json["cause"].is_null());
    assert!(json["elapsed_ms"].is_u64());
    assert!(
        json["started_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .is_ok()
    );
}

#[tokio::test]
async fn an_attempt_without_a_reply_is_recorded_with_its_cause_and_without_its_url() {
    let attempt = attempt("http://nowhere.invalid/?key=hidden", PATIENT).await;
    let json = serde_json::to_value(&attempt).unwrap();
    assert_eq!(
        (&json["error"], &json["verdict"]),
        (&"dns".into(), &"retryable".into())
    );
    assert!(json["status"].is_null() && json["body_head"].is_null());
    let cause = json["cause"].as_str().unwrap();
    assert!(
        cause.contains("the lookup failed: ") && !cause.contains("hidden"),
        "{cause}"
    );
}

#[tokio::test]
async fn an_attempt_says_where_its_time_went() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_millis(20)))
        .mount(&server)
        .await;
    let sender = Sender::builder().build().unwrap();
    let url = server.uri().replace("127.0.0.1", "localhost");
    let endpoint = Endpoint::new(url).unwrap();

    let first = sender.attempt(&endpoint, &Message::from("x"), 1).await;
    let Phases {
        dns,
        connect,
        first_byte,
        ..
    } = first.phases;
    assert!(first_byte.unwrap() >= Duration::from_millis(20));
    assert!(dns.unwrap() + connect.unwrap() + first_byte.unwrap() <= first.elapsed);
    let json = serde_json::to_value(&first).unwrap();
    assert!(json["phases"]["first_byte_ms"].as_f64().unwrap() >= 20.0);

    // The connection is used again: it took no time.
    let second = sender.attempt(&endpoint, &Message::from("x"), 1).await;
    assert_eq!((second.phases.dns, second.phases.connect), (None, None));
    assert!(second.phases.first_byte.unwrap() <= second.elapsed);

    // An address is not looked up; a body that is empty is not seen leaving.
    let endpoint = Endpoint::new(server.uri()).unwrap();
    let third = sender.attempt(&endpoint, &Message::from(""), 1).await;
    assert_eq!(third.phases.dns, None);
    assert!(third.phases.connect.unwrap() + third.phases.first_byte.unwrap() <= third.elapsed);
}

#[tokio::test]
async fn an_attempt_that_ends_early_has_the_phases_that_it_reached() {
    let sender = Sender::builder().build().unwrap();
    let attempt = |url| {
        let endpoint = Endpoint::new(url).unwrap();
        let sender = sender.clone();
        async move { sender.attempt(&endpoint, &Message::from("x"), 1).await }
    };
    let unresolved = attempt("http://nowhere.invalid/".to_owned()).await.phases;
    assert!(unresolved.dns.is_some());
    assert_eq!((unresolved.connect, unresolved.first_byte), (None, None));

    let receiver = Receiver::start(Behaviour::ResetAfterBody).await.unwrap();
    let reset = attempt(receiver.url("/")).await.phases;
    assert!(reset.connect.is_some() && reset.first_byte.is_none());
}
