//! The client of one endpoint.

mod circuit;
mod panics;
mod pauses;
mod queue;
mod runtimes;
mod stopping;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use http::StatusCode;
use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::retry::{RetryPolicy, Schedule};
use tidings::signing::Secret;
use tidings::{
    Attempt, Client, ClientBuilder, DeliveryError, DeliveryErrorCause, ErrorKind, Message, Refusal,
    Sender,
};
use tidings_notify::{
    Draft, Epoch, Event, EventId, EventType, Payload, Router, RoutingInfo, UserId,
};
use tidings_test_support::{Behaviour, Gate, Reply, Script};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{HOUR, at_once, in_an_hour, is_pending, receiver, silent};

type Errors = mpsc::Receiver<(Message, DeliveryError)>;

/// A started client whose failures can be received.
fn started(builder: ClientBuilder) -> (Client, Errors) {
    let (report, errors) = mpsc::channel(10_000);
    let client = builder
        .on_error(move |error| report.try_send((error.message().clone(), error)).unwrap())
        .build()
        .unwrap();
    client.start();
    (client, errors)
}

/// A server that gives some replies in turn and the last one for ever.
async fn server(statuses: &[u16]) -> MockServer {
    let server = MockServer::start().await;
    let (last, first) = statuses.split_last().unwrap();
    for status in first {
        let reply = ResponseTemplate::new(*status);
        let mock = Mock::given(method("POST")).respond_with(reply);
        mock.up_to_n_times(1).mount(&server).await;
    }
    let reply = ResponseTemplate::new(*last);
    Mock::given(method("POST"))
        .respond_with(reply)
        .mount(&server)
        .await;
    server
}

/// Opens after one failure, for so long.
fn fragile(open_for: Duration) -> CircuitBreakerConfig {
    CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(open_for)
}

#[tokio::test]
async fn notify_needs_a_start_and_hands_the_message_back() {
    let client = Client::new("http://127.0.0.1:9/").unwrap();
    let message = Message::from("x");
    let error = client.notify(message.clone()).unwrap_err();
    assert_eq!(error.reason(), Refusal::NotStarted);
    assert!(error.is_retryable() && !error.is_full());
    assert_eq!(error.into_message(), message);
    assert_eq!(
        client.enqueue("x").await.unwrap_err().reason(),
        Refusal::NotStarted
    );
    let error = client.deliver("x").await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::NotStarted));
}

#[tokio::test]
async fn deliver_returns_every_attempt_under_one_id_each_signed_anew() {
    let server = server(&[503, 500, 200]).await;
    let builder = Client::builder(server.uri())
        .retry(at_once(5))
        .secret(Secret::generate());
    let (client, mut errors) = started(builder);
    let delivered = client
        .deliver(Message::from("x").with_id("m-1").unwrap())
        .await
        .unwrap();
    let statuses: Vec<_> = delivered.attempts.iter().map(Attempt::status).collect();
    let expected = [503, 500, 200].map(|code| StatusCode::from_u16(code).ok());
    assert_eq!(statuses, expected);
    let numbers: Vec<_> = delivered
        .attempts
        .iter()
        .map(|attempt| attempt.number)
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(delivered.attempt_count(), 3);
    for request in server.received_requests().await.unwrap() {
        assert_eq!(request.headers["webhook-id"], "m-1");
        assert!(request.headers.contains_key("webhook-signature"));
    }
    client.stop().await;
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn deliver_returns_every_attempt_of_many_and_a_callback_the_first_and_the_last() {
    let server = server(&[503]).await;
    let (client, mut errors) = started(Client::builder(server.uri()).retry(at_once(20)));
    let numbers = |error: &DeliveryError| -> Vec<u32> {
        assert_eq!(error.attempt_count(), 20);
        assert!(error.to_string().contains("after 20 attempts: 503"));
        let attempts = error.attempts().iter();
        attempts.map(|attempt| attempt.number).collect()
    };
    let returned = client.deliver("x").await.unwrap_err();
    assert!(numbers(&returned).into_iter().eq(1..=20));
    client.notify("y").unwrap();
    let (_, reported) = errors.recv().await.unwrap();
    assert_eq!(numbers(&reported), [1, 13, 14, 15, 16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn no_attempt_begins_beyond_the_maximum_age_of_a_message() {
    const WAIT: Duration = Duration::from_millis(100);
    let server = server(&[503]).await;
    let schedule = Schedule::new([WAIT; 20]).unwrap();
    let policy = RetryPolicy::new(schedule).with_max_age(3 * WAIT);
    let (client, _errors) = started(Client::builder(server.uri()).retry(policy));
    let error = client.deliver("x").await.unwrap_err();
    let began: Vec<_> = error.attempts().iter().map(|it| it.started_at).collect();
    // It was accepted before the first one began, and waits get no shorter than they are.
    assert!((1..=3).contains(&began.len()), "{began:?}");
    assert!(began.is_sorted(), "{began:?}");
}

#[tokio::test]
async fn deliver_returns_the_failure_and_does_not_report_it_again() {
    let server = server(&[500]).await;
    let (client, mut errors) = started(Client::builder(server.uri()).retry(at_once(3)));
    let error = client.deliver("x").await.unwrap_err();
    assert_eq!(error.attempts().len(), 3);
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(error.is_retryable());
    assert_eq!(error.message().body(), "x");
    client.stop().await;
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn a_failure_that_no_caller_waits_for_any_more_is_reported() {
    let receiver = silent().await;
    let (client, mut errors) = started(Client::builder(receiver.url("/")));
    let mut delivery = Box::pin(client.deliver("x"));
    assert!(is_pending(delivery.as_mut()).await);
    drop(delivery);
    receiver.request(1).await;
    client.stop_within(Duration::ZERO).await;
    let (message, _error) = errors.recv().await.unwrap();
    assert_eq!(message.body(), "x");
}

#[tokio::test]
async fn permanent_failures_are_reported_after_one_attempt() {
    let server = server(&[404]).await;
    let (client, mut errors) = started(Client::builder(server.uri()).retry(at_once(5)));
    client.notify("x").unwrap();
    let (message, error) = errors.recv().await.unwrap();
    assert_eq!(message.body(), "x");
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(error.attempts().len(), 1);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn without_a_policy_nothing_is_retried() {
    let server = server(&[500]).await;
    let (client, mut errors) = started(Client::builder(server.uri()));
    client.notify("x").unwrap();
    let (_message, error) = errors.recv().await.unwrap();
    assert_eq!(error.attempts().len(), 1);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_transport_error_is_retryable_and_has_its_cause() {
    let receiver = receiver(Behaviour::HangUp).await;
    let (client, _errors) = started(Client::builder(receiver.url("/")));
    let error = client.deliver("x").await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.status(), None);
    let DeliveryErrorCause::Transport(cause) = error.cause() else {
        panic!("{error:?}");
    };
    assert_eq!(cause.kind(), ErrorKind::Reset);
}

#[tokio::test]
async fn a_hint_delays_the_next_attempt() {
    let server = MockServer::start().await;
    let reply = ResponseTemplate::new(429).insert_header("retry-after", "3600");
    Mock::given(method("POST"))
        .respond_with(reply)
        .mount(&server)
        .await;
    // An hour does not fit: the delivery ends rather than coming too early.
    let retry = at_once(5).with_max_age(HOUR / 2);
    let (client, _errors) = started(Client::builder(server.uri()).retry(retry));
    let error = client.deliver("x").await.unwrap_err();
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn a_panicking_callback_kills_no_worker() {
    let server = server(&[404, 404, 200]).await;
    let client = Client::builder(server.uri())
        .workers(1)
        .on_error(|_| panic!("this is a test"))
        .build()
        .unwrap();
    client.start();
    client.notify("x").unwrap();
    client.notify("x").unwrap();
    client.deliver("x").await.unwrap();
    client.stop().await;
}

#[tokio::test]
async fn the_text_of_a_failure_gives_the_reason_once() {
    let server = server(&[503]).await;
    let (client, _errors) = started(Client::builder(server.uri()).retry(at_once(3)));
    let message = Message::from("x").with_id("m-1").unwrap();
    let error = client.deliver(message).await.unwrap_err();
    let expected = "message m-1 was not delivered after 3 attempts: 503 Service Unavailable";
    assert_eq!(error.to_string(), expected);
    assert!(error.source().is_none());

    let receiver = receiver(Behaviour::HangUp).await;
    let (client, _errors) = started(Client::builder(receiver.url("/")));
    let message = Message::from("x").with_id("m-2").unwrap();
    let error = client.deliver(message.clone()).await.unwrap_err();
    let DeliveryErrorCause::Transport(cause) = error.cause() else {
        panic!("{error:?}");
    };
    let text = format!("message m-2 was not delivered after 1 attempt: {cause}");
    assert_eq!(error.to_string(), text);
    // What lies beneath is not what the text says.
    assert_ne!(error.source().unwrap().to_string(), cause.to_string());
    client.stop().await;
    let error = client.deliver(message.clone()).await.unwrap_err();
    let text = "message m-2 was not delivered: sending stopped before the outcome was known";
    assert_eq!(error.to_string(), text);
    let error = client.notify(message).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message m-2 was not accepted: sending has stopped"
    );
    assert!(!error.is_full() && !error.is_retryable());
}

#[tokio::test]
async fn a_status_without_a_name_is_said_by_its_number() {
    for (reply, expected) in [
        ("HTTP/1.1 700 Whatever\r\ncontent-length: 0\r\n\r\n", "700"),
        ("HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", "404 Not Found"),
    ] {
        let receiver = receiver(Behaviour::Raw(reply.into())).await;
        let (client, _errors) = started(Client::builder(receiver.url("/")));
        let error = client.deliver("x").await.unwrap_err();
        assert_eq!(error.cause().to_string(), expected);
    }
}

#[tokio::test]
async fn clients_with_one_sender_share_its_connections() {
    let receiver = receiver(Reply::ok()).await;
    let sender = Sender::builder().build().unwrap();
    for path in ["/a", "/b"] {
        let builder = Client::builder(receiver.url(path)).sender(sender.clone());
        let (client, _errors) = started(builder);
        client.deliver("x").await.unwrap();
        client.stop().await;
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_rate_limit_keeps_attempts_apart() {
    let receiver = receiver(Reply::ok()).await;
    let builder = Client::builder(receiver.url("/")).rate_limit(10, Duration::from_secs(1));
    let (client, _errors) = started(builder);
    let began = Instant::now();
    for _ in 0..3 {
        client.notify("x").unwrap();
    }
    client.stop().await;
    assert_eq!(receiver.requests().len(), 3);
    // Two distances of 100 ms, less the slack of 10 ms.
    assert!(began.elapsed() >= Duration::from_millis(190));
}

#[tokio::test]
async fn bad_settings_are_refused_by_name() {
    let builder = || Client::builder("http://example.com");
    for (builder, field) in [
        (Client::builder(""), "url"),
        (Client::builder("not a url"), "url"),
        (builder().workers(0), "workers"),
        (builder().workers(usize::MAX), "workers"),
        (builder().queue_size(0), "queue_size"),
        (builder().queue_size(usize::MAX), "queue_size"),
        (builder().timeout(Duration::ZERO), "timeout"),
        (builder().content_type("a\nb"), "content_type"),
        (builder().content_type(""), "content_type"),
        (builder().header("a b", "c"), "header"),
        (builder().rate_limit(0, HOUR), "rate_limit"),
        (builder().retry(at_once(0)), "max_attempts"),
        (
            builder().circuit_breaker(fragile(Duration::ZERO)),
            "open_for",
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.field(), field);
        assert!(
            error
                .to_string()
                .starts_with(&format!("`{field}`: expected "))
        );
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn the_content_type_and_the_http_client_can_be_chosen() {
    let server = server(&[200]).await;
    let http = reqwest::Client::builder().http1_title_case_headers();
    let builder = Client::builder(server.uri())
        .content_type("application/json")
        .sender(Sender::builder().http_client(http).build().unwrap());
    let (client, _errors) = started(builder);
    client.deliver("{}").await.unwrap();
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["content-type"], "application/json");
}

fn event() -> Event {
    let draft = Draft::new(
        UserId::new("alice").unwrap(),
        EventType::new("greeting").unwrap(),
        Payload::parse(r#"{"text":"hi"}"#).unwrap(),
    );
    Event::from_draft(draft, EventId::new(Epoch::random(), 1))
}

#[tokio::test]
async fn as_a_router_it_posts_the_event_and_the_outcome_decides() {
    let server = server(&[200, 400]).await;
    let (client, _errors) = started(Client::builder(server.uri()));
    let event = event();
    client.route(&RoutingInfo::default(), &event).await.unwrap();
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["content-type"], "application/json");
    let body: serde_json::Value = request.body_json().unwrap();
    assert_eq!(body["id"], event.id.to_string());
    assert_eq!(body["data"]["text"], "hi");

    let error = client
        .route(&RoutingInfo::default(), &event)
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.downcast_ref::<DeliveryError>().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_sent_twice_under_load() {
    let server = server(&[200]).await;
    let (client, mut errors) = started(Client::builder(server.uri()).queue_size(20));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..50 {
                    client.enqueue(format!("{sender}-{number}")).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    client.stop().await;
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 200);
    let bodies: BTreeSet<_> = requests.into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 200);
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn what_could_never_be_sent_is_refused_when_it_is_registered() {
    for (builder, field) in [
        (Client::builder("http://"), "url"),
        (Client::builder("javascript:alert(1)"), "url"),
        (
            Client::builder("http://example.com").header("x", "a\r\nb: c"),
            "header",
        ),
        (
            Client::builder("http://example.com").header("host", "inner"),
            "header",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[tokio::test]
async fn the_first_byte_has_a_deadline_of_its_own() {
    let receiver = silent().await;
    let builder = Client::builder(receiver.url("/")).first_byte_timeout(Duration::from_millis(50));
    let (client, _errors) = started(builder);
    let error = client.deliver("x").await.unwrap_err();
    let attempt = &error.attempts()[0];
    assert_eq!(attempt.error_kind(), Some(ErrorKind::ResponseTimeout));
    assert!(attempt.elapsed < Duration::from_secs(30));
}
