use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tidings::signing::{Secret, TimestampedSigner, TimestampedVerifier, Verifier};
use tidings::{
    AddressPolicy, Attempt, BlockedAddress, Endpoint, EndpointBuilder, ErrorKind, MAX_ANSWER_BYTES,
    Message, Sender, Verdict,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::{body_bytes, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::receiver::Receiver;

/// Long enough for anything that is not meant to time out, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(200);

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

/// Closes a connection so that the other side sees a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
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
    let answer = attempt.result.unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body_head, "thanks");
    let request = &server.received_requests().await.unwrap()[0];
    assert!(!request.headers.contains_key("accept-encoding"));
    assert!(!request.headers.contains_key("webhook-signature"));
    assert_eq!(request.headers["content-length"], "5");
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
        let answer = ResponseTemplate::new(status).insert_header("retry-after", "120");
        Mock::given(method("POST"))
            .respond_with(answer)
            .mount(&server)
            .await;
        let attempt = attempt(&server.uri(), PATIENT).await;
        assert_eq!(attempt.verdict(), verdict, "{status}");
        assert_eq!(attempt.retry_after(), Some(Duration::from_secs(120)));
        assert_eq!(attempt.result.unwrap().location, None);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_target_is_kept() {
    let mut elsewhere = Receiver::silent().await;
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(307).insert_header("location", elsewhere.url());
    Mock::given(method("POST"))
        .respond_with(answer)
        .mount(&server)
        .await;

    let attempt = attempt(&server.uri(), PATIENT).await;

    assert_eq!(attempt.verdict(), Verdict::Permanent);
    assert_eq!(attempt.result.unwrap().location, Some(elsewhere.url()));
    assert_eq!(elsewhere.untaken(), 0);
    // The connection would be noticed: one that is made by hand is.
    let mut stream = TcpStream::connect(elsewhere.url()[7..].split('/').next().unwrap())
        .await
        .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(elsewhere.request().await, "get / http/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_the_timeout_and_is_ambiguous() {
    let receiver = Receiver::silent().await;
    let attempt = attempt(&receiver.url(), SHORT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ResponseTimeout));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    assert!(attempt.is_ambiguous());
    assert!(attempt.elapsed >= SHORT);
}

#[tokio::test]
async fn the_first_byte_has_a_deadline_of_its_own() {
    let receiver = Receiver::silent().await;
    let endpoint = Endpoint::builder(receiver.url())
        .timeout(PATIENT)
        .first_byte_timeout(SHORT);
    let attempt = attempt_to(endpoint).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ResponseTimeout));
    assert!(attempt.elapsed < PATIENT);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_connect_timeout_and_not_ambiguous() {
    // It accepts by its backlog and never speaks TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let sender = Sender::builder().connect_timeout(SHORT).build().unwrap();
    let endpoint = Endpoint::builder(&url).timeout(PATIENT).build().unwrap();
    let attempt = sender.attempt(&endpoint, &Message::from("x"), 1).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ConnectTimeout));
    assert!(!attempt.is_ambiguous());

    // The whole deadline says the same when it comes first.
    let attempt = attempt_to(Endpoint::builder(&url).timeout(SHORT)).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ConnectTimeout));
}

#[tokio::test]
async fn a_reset_after_the_request_is_retryable_ambiguous_and_not_sent_twice() {
    let mut receiver = Receiver::start(|stream| async move { reset(stream) }).await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Reset));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    assert!(attempt.is_ambiguous());
    receiver.request().await;
    assert_eq!(receiver.untaken(), 0);
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_a_reset() {
    let receiver = Receiver::answering("").await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Reset));
    assert!(attempt.is_ambiguous());
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let receiver = Receiver::answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Protocol));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
}

#[tokio::test]
async fn endless_headers_are_a_bounded_failure() {
    let receiver = Receiver::start(|mut stream| async move {
        let line = format!("x-more: {}\r\n", "a".repeat(1000));
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while sent.is_ok() {
            sent = stream.write_all(line.as_bytes()).await;
        }
    })
    .await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Protocol));
}

#[tokio::test]
async fn nobody_listening_is_refused_and_not_ambiguous() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let attempt = attempt(&url, PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Refused));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    assert!(!attempt.is_ambiguous());
}

#[tokio::test]
async fn a_name_without_an_address_is_a_retryable_dns_error() {
    let attempt = attempt("http://nowhere.invalid/", PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Dns));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_a_tls_error() {
    let server = MockServer::start().await;
    let url = server.uri().replace("http:", "https:");
    let attempt = attempt(&url, PATIENT).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Tls));
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    assert!(!attempt.is_ambiguous());
}

#[tokio::test]
async fn a_body_that_drips_is_cut_and_the_status_decides() {
    let receiver = Receiver::start(|mut stream| async move {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        drop(stream.write_all(head).await);
        std::future::pending::<()>().await;
    })
    .await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert!(attempt.elapsed < PATIENT);
    assert_eq!(attempt.result.unwrap().body_head, "first");
}

#[tokio::test]
async fn a_body_that_breaks_off_changes_nothing() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered);
    assert_eq!(attempt.result.unwrap().body_head, "half");
}

#[tokio::test]
async fn of_an_endless_body_the_head_is_kept_and_the_rest_is_not_read() {
    let receiver = Receiver::start(|mut stream| async move {
        let head = format!("HTTP/1.1 500 X\r\ncontent-length: {}\r\n\r\n", u64::MAX / 2);
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() {
            sent = stream.write_all(&[b'a'; 10_000]).await;
        }
    })
    .await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    let answer = attempt.result.unwrap();
    assert_eq!(answer.body_head, Bytes::from(vec![b'a'; MAX_ANSWER_BYTES]));
}

#[tokio::test]
async fn a_compressed_body_stays_compressed() {
    let receiver = Receiver::answering(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nbomb",
    )
    .await;
    let attempt = attempt(&receiver.url(), PATIENT).await;
    assert_eq!(attempt.result.unwrap().body_head, "bomb");
}

#[tokio::test]
async fn the_public_only_policy_blocks_addresses_and_names_for_good() {
    let mut receiver = Receiver::silent().await;
    let sender = Sender::builder()
        .address_policy(AddressPolicy::PublicOnly)
        .build()
        .unwrap();
    for url in [
        receiver.url(),
        receiver.url().replace("127.0.0.1", "localhost"),
    ] {
        let endpoint = Endpoint::new(&url).unwrap();
        let attempt = sender.attempt(&endpoint, &Message::from("x"), 1).await;
        assert_eq!(
            attempt.error_kind(),
            Some(ErrorKind::BlockedAddress),
            "{url}"
        );
        assert_eq!(attempt.verdict(), Verdict::Permanent);
        assert!(!attempt.is_ambiguous());
        let mut cause: &dyn std::error::Error = attempt.result.as_ref().unwrap_err();
        while let Some(source) = cause.source() {
            cause = source;
        }
        assert!(cause.is::<BlockedAddress>());
    }
    // The receiver works: an open policy reaches it.
    attempt(&receiver.url(), SHORT).await;
    receiver.request().await;
    assert_eq!(receiver.untaken(), 0);
}

#[tokio::test]
async fn a_client_of_ones_own_cannot_undermine_the_address_policy() {
    let builder = Sender::builder()
        .address_policy(AddressPolicy::PublicOnly)
        .http_client(reqwest::Client::new());
    assert_eq!(builder.build().unwrap_err().field(), "http_client");
}

#[tokio::test]
async fn an_attempt_is_recorded_as_documented_json() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(503)
        .insert_header("retry-after", "7")
        .set_body_bytes(*b"no\xff");
    Mock::given(method("POST"))
        .respond_with(answer)
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
    assert!(json["error"].is_null() && json["location"].is_null());
    assert!(json["elapsed_ms"].is_u64());
    assert!(
        json["started_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .is_ok()
    );
}
