use std::error::Error as _;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tidings::circuit_breaker::CircuitBreakerConfig;
use tidings::router::{
    BroadcastError, EventFilter, InstanceReceiver, InstanceRouter, ReceiveError, URL_METADATA,
    WebhookRouter,
};
use tidings::signing::{
    Secret, Signer, StandardSigner, TimestampedSigner, TimestampedVerifier, Verifier, VerifyError,
};
use tidings::transport::{RequestBody, ResponseBody, Transport};
use tidings::{
    AttemptError, DeliveryErrorCause, Dispatcher, Endpoint, EndpointId, LaneConfig, Sender,
};
use tidings_notify::{
    Draft, Event, EventType, Item, MemoryStore, Notifier, Payload, RouteError, Router, RoutingInfo,
    Since, UserId,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::support::{at_once, silent};

fn user() -> UserId {
    UserId::new("alice").unwrap()
}

fn draft(event_type: &str) -> Draft {
    Draft::new(
        user(),
        EventType::new(event_type).unwrap(),
        Payload::parse(r#"{"text":"hi"}"#).unwrap(),
    )
}

async fn event(event_type: &str) -> Event {
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    notifier.push(draft(event_type)).await.unwrap()
}

/// A server that replies to `/<status>` with that status.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    for status in [200, 500] {
        Mock::given(method("POST"))
            .and(path(format!("/{status}")))
            .respond_with(ResponseTemplate::new(status))
            .mount(&server)
            .await;
    }
    server
}

fn endpoint(server: &MockServer, status: u16) -> Endpoint {
    Endpoint::new(format!("{}/{status}", server.uri())).unwrap()
}

/// A router over started lanes with three attempts, one right after the other.
fn router() -> WebhookRouter {
    let lane = LaneConfig::default()
        .with_retry(at_once(3))
        .without_circuit_breaker();
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    WebhookRouter::new(dispatcher)
}

async fn route(router: &impl Router, event: &Event) -> Result<(), RouteError> {
    router.route(&RoutingInfo::default(), event).await
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

#[tokio::test]
async fn an_event_goes_to_every_endpoint_whose_filter_matches() {
    let server = server().await;
    let router = router();
    let only = |name| EventFilter::only([EventType::new(name).unwrap()]);
    for (id, filter) in [
        ("all", EventFilter::all()),
        ("comments", only("comment.created")),
        ("others", only("order.paid")),
        ("none", EventFilter::only([])),
    ] {
        let endpoint = Endpoint::builder(format!("{}/200", server.uri()))
            .header("x-endpoint", id)
            .build()
            .unwrap();
        assert!(router.insert(id, endpoint, filter));
    }
    let event = event("comment.created").await;
    route(&router, &event).await.unwrap();
    let requests = requests(&server).await;
    let mut ids: Vec<_> = (requests.iter())
        .map(|request| request.headers["x-endpoint"].to_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["all", "comments"]);
    let body: serde_json::Value = requests[0].body_json().unwrap();
    assert_eq!(body["data"]["text"], "hi");
}

#[tokio::test]
async fn no_matching_endpoint_is_no_error_and_no_request() {
    let server = server().await;
    let router = router();
    let filter = EventFilter::only([EventType::new("order.paid").unwrap()]);
    router.insert("a", endpoint(&server, 500), filter);
    route(&router, &event("comment.created").await)
        .await
        .unwrap();
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn all_failing_is_an_error_after_the_configured_attempts() {
    let server = server().await;
    let router = router();
    for id in ["a", "b"] {
        let endpoint = endpoint(&server, 500);
        router.insert(id, endpoint, EventFilter::all());
    }
    let error = route(&router, &event("x").await).await.unwrap_err();
    let error = error.source().unwrap().downcast_ref::<BroadcastError>();
    let error = error.unwrap();
    let failures = error.failures();
    let cause = error.source().unwrap();
    assert_eq!(cause.to_string(), failures[0].1.to_string());
    let mut ids: Vec<_> = failures.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b"]);
    for (_, error) in failures {
        assert_eq!(error.attempts().len(), 3);
        assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    }
    assert_eq!(requests(&server).await.len(), 6);
}

#[tokio::test]
async fn some_failing_is_no_error() {
    let server = server().await;
    let router = router();
    for status in [200, 500] {
        let endpoint = endpoint(&server, status);
        router.insert(status.to_string(), endpoint, EventFilter::all());
    }
    route(&router, &event("x").await).await.unwrap();
    assert_eq!(requests(&server).await.len(), 4);
    // Of those that are left all fail.
    assert_eq!(router.remove("200"), Some(Vec::new()));
    assert_eq!(router.remove("200"), None);
    route(&router, &event("x").await).await.unwrap_err();
}

#[tokio::test]
async fn failures_beside_an_endpoint_that_accepted_the_event_are_reported() {
    let server = server().await;
    let (report, mut reports) = mpsc::channel(10);
    let lane = LaneConfig::default().without_retry();
    let dispatcher = Dispatcher::builder()
        .lane(lane)
        .on_error(move |id, error| report.try_send((id.to_string(), error)).unwrap())
        .build()
        .unwrap();
    dispatcher.start();
    let router = WebhookRouter::new(dispatcher);
    router.insert("fails", endpoint(&server, 500), EventFilter::all());
    let event = event("x").await;
    // This one is returned.
    route(&router, &event).await.unwrap_err();
    router.insert("works", endpoint(&server, 200), EventFilter::all());
    route(&router, &event).await.unwrap();
    let (id, error) = reports.try_recv().unwrap();
    assert_eq!(
        (id.as_str(), error.message().id()),
        ("fails", &*event.id.to_string())
    );
    assert!(reports.try_recv().is_err());
}

#[tokio::test]
async fn a_route_waits_no_longer_than_the_longest_wait_and_what_is_left_continues() {
    let dead = silent().await;
    let server = server().await;
    let (report, mut reports) = mpsc::channel(10);
    let dispatcher = Dispatcher::builder()
        .on_error(move |id, error| report.try_send((id.to_string(), error)).unwrap())
        .build()
        .unwrap();
    dispatcher.start();
    let router = WebhookRouter::new(dispatcher).with_longest_wait(Duration::from_millis(50));
    let down = Endpoint::new(dead.url("/")).unwrap();
    for id in ["down", "b-down"] {
        router.insert(id, down.clone(), EventFilter::all());
    }
    let event = event("x").await;
    let error = route(&router, &event).await.unwrap_err();
    let error = error.source().unwrap();
    assert_eq!(
        error.to_string(),
        "none of 2 endpoints accepted the event in time: 0 failed, 2 are still tried"
    );
    let error = error.downcast_ref::<BroadcastError>().unwrap();
    let mut pending: Vec<_> = error.pending().iter().map(EndpointId::as_str).collect();
    pending.sort_unstable();
    assert_eq!(pending, ["b-down", "down"]);
    assert!(error.failures().is_empty());

    // One that accepted it is enough.
    router.remove("b-down");
    router.insert("works", endpoint(&server, 200), EventFilter::all());
    route(&router, &event).await.unwrap();

    router.dispatcher().stop_within(Duration::ZERO).await;
    let mut reported = Vec::new();
    while let Ok((id, _)) = reports.try_recv() {
        reported.push(id);
    }
    reported.sort_unstable();
    assert_eq!(reported, ["b-down", "down", "down"]);
}

#[tokio::test]
async fn a_route_without_a_longest_wait_waits_for_the_outcome() {
    let server = server().await;
    let router = router().with_longest_wait(Duration::MAX);
    router.insert("works", endpoint(&server, 200), EventFilter::all());
    route(&router, &event("x").await).await.unwrap();
    router.insert("works", endpoint(&server, 500), EventFilter::all());
    route(&router, &event("x").await).await.unwrap_err();
}

#[tokio::test]
async fn an_endpoint_whose_queue_is_full_does_not_get_the_event_and_that_is_a_failure() {
    let dead = silent().await;
    let lane = LaneConfig::default().with_queue_size(1);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    let router = WebhookRouter::new(dispatcher).with_longest_wait(Duration::from_millis(50));
    router.insert(
        "full",
        Endpoint::new(dead.url("/")).unwrap(),
        EventFilter::all(),
    );
    router.dispatcher().notify("full", "first").unwrap();
    let error = route(&router, &event("x").await).await.unwrap_err();
    let error = error.source().unwrap().downcast_ref::<BroadcastError>();
    let [(id, failure)] = error.unwrap().failures() else {
        panic!("{error:?}");
    };
    assert_eq!(id.as_str(), "full");
    assert!(matches!(failure.cause(), DeliveryErrorCause::QueueFull));
    assert!(failure.is_retryable() && !failure.was_attempted());
    assert_eq!(
        failure.to_string().split_once(": ").unwrap().1,
        "the queue is full"
    );
    assert!(error.unwrap().pending().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_never_replies_does_not_keep_the_event_from_the_others() {
    let server = server().await;
    let dead = silent().await;
    let router = router();
    let silent = Endpoint::new(dead.url("/")).unwrap();
    router.insert("dead", silent, EventFilter::all());
    let endpoint = endpoint(&server, 200);
    router.insert("ok", endpoint, EventFilter::all());
    let routing = tokio::spawn({
        let (router, event) = (router.clone(), event("x").await);
        async move { route(&router, &event).await }
    });
    dead.request(1).await;
    while requests(&server).await.is_empty() {
        tokio::task::yield_now().await;
    }
    routing.abort();
}

/// A router whose callbacks change it each time that they are called.
fn router_that_changes_itself() -> WebhookRouter {
    let slot: Arc<OnceLock<WebhookRouter>> = Arc::default();
    let (on_error, on_change) = (Arc::clone(&slot), Arc::clone(&slot));
    let unreachable = || Endpoint::new("http://127.0.0.1:9/").unwrap();
    let dispatcher = Dispatcher::builder()
        .on_error(move |_, _| {
            let router = on_error.get().unwrap();
            router.remove("b");
            router.insert("c", unreachable(), EventFilter::all());
        })
        .on_circuit_change(move |_, _| {
            on_change.get().unwrap().remove("d");
        })
        .build()
        .unwrap();
    dispatcher.start();
    let router = WebhookRouter::new(dispatcher);
    slot.set(router.clone()).unwrap();
    for id in ["a", "b", "d"] {
        router.insert(id, unreachable(), EventFilter::all());
    }
    router
}

/// Fails if the function does not end soon: a deadlock would last for ever.
fn soon(run: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        run();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[tokio::test]
async fn a_callback_may_change_the_router_that_removes_an_endpoint() {
    let router = router_that_changes_itself();
    router.dispatcher().open_circuit("a");
    router.dispatcher().notify("a", "queued").unwrap();
    let inside = router.clone();
    soon(move || assert_eq!(inside.remove("a").unwrap().len(), 1));
    assert_eq!(router.dispatcher().endpoints(), ["c".into()]);
}

#[tokio::test]
async fn a_callback_may_change_the_router_that_inserts_an_endpoint() {
    let router = router_that_changes_itself();
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let lane = LaneConfig::default()
        .without_retry()
        .with_circuit_breaker(breaker);
    let endpoint = Endpoint::new("http://127.0.0.1:9/").unwrap();
    let dispatcher = router.dispatcher();
    dispatcher
        .insert_with("a", endpoint.clone(), &lane)
        .unwrap();
    dispatcher.deliver("a", "trips").await.unwrap_err();
    router.insert("d", endpoint, EventFilter::all());
    // A new URL closes the circuit, which is reported within the call.
    let inside = router.clone();
    soon(move || {
        let moved = Endpoint::new("http://127.0.0.1:9/moved").unwrap();
        inside.insert("a", moved, EventFilter::all());
    });
    assert!(dispatcher.status("d").is_none());
}

fn instance(url: String) -> RoutingInfo {
    RoutingInfo {
        instance_id: "other".to_owned(),
        metadata: [(URL_METADATA.to_owned(), url)].into(),
    }
}

fn started(signer: impl Into<Signer>) -> InstanceRouter {
    let router = InstanceRouter::builder(signer).build().unwrap();
    router.start();
    router
}

/// What an instance router posts for an event.
async fn posted(signer: impl Into<Signer>, event: &Event) -> (HeaderMap, Vec<u8>) {
    let server = server().await;
    let router = started(signer);
    let to = instance(format!("{}/200", server.uri()));
    router.route(&to, event).await.unwrap();
    let request = requests(&server).await.remove(0);
    (request.headers, request.body)
}

fn standard(secret: &Secret) -> StandardSigner {
    StandardSigner::new([secret.clone()]).unwrap()
}

#[tokio::test]
async fn an_event_reaches_the_streams_of_the_other_instance() {
    let store = MemoryStore::new();
    let here = Notifier::new(Arc::new(store.clone()));
    let there = Notifier::builder(Arc::new(store))
        .poll_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    let mut stream = there.subscribe(user(), Since::Now).await.unwrap();
    let event = here.push(draft("greeting")).await.unwrap();

    let secret = Secret::generate();
    let (headers, body) = posted(standard(&secret), &event).await;
    assert_eq!(headers["webhook-id"], event.id.to_string());
    let receiver = InstanceReceiver::new(Verifier::new(secret), there);
    // A repetition does no harm.
    for _ in 0..2 {
        let delivered = receiver.receive(&headers, &body, Timestamp::now());
        assert_eq!(delivered.unwrap(), event);
    }
    let got = loop {
        if let Item::Event(event) = stream.next().await.unwrap() {
            break event;
        }
    };
    assert_eq!(*got, event);
}

#[tokio::test]
async fn an_event_waits_no_longer_than_its_deadline_behind_others_of_its_instance() {
    const EVENTS: usize = 5;
    let receiver = silent().await;
    let router = InstanceRouter::builder(standard(&Secret::generate()))
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    router.start();
    let (to, event) = (instance(receiver.url("/")), event("x").await);
    let mut calls = JoinSet::new();
    for _ in 0..EVENTS {
        let (router, to, event) = (router.clone(), to.clone(), event.clone());
        calls.spawn(async move { router.route(&to, &event).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_err));
    // One request at a time, each of which takes as long as all events together may.
    assert!(receiver.requests().len() < EVENTS);
}

#[tokio::test]
async fn the_receiving_half_accepts_within_five_minutes_and_refuses_beyond() {
    let event = event("x").await;
    let secret = Secret::generate();
    let (headers, body) = posted(standard(&secret), &event).await;
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let receiver = InstanceReceiver::new(Verifier::new(secret), notifier);
    let sent_at: i64 = headers["webhook-timestamp"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    for (offset, accepted) in [
        (0, true),
        (300, true),
        (-300, true),
        (301, false),
        (-301, false),
    ] {
        let now = Timestamp::from_second(sent_at + offset).unwrap();
        let outcome = receiver.receive(&headers, &body, now);
        assert_eq!(outcome.is_ok(), accepted, "{offset}");
    }
}

#[tokio::test]
async fn the_receiving_half_refuses_what_is_not_genuine() {
    let event = event("x").await;
    let (headers, body) = posted(TimestampedSigner::new("key").unwrap(), &event).await;
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let receiver = |key: &str| {
        InstanceReceiver::timestamped(TimestampedVerifier::new(key).unwrap(), notifier.clone())
    };
    let now = Timestamp::now();
    receiver("key").receive(&headers, &body, now).unwrap();

    let refused = |receiver: InstanceReceiver, headers: &HeaderMap, body: &[u8]| {
        let error = receiver.receive(headers, body, now).unwrap_err();
        assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
        match error {
            ReceiveError::NotGenuine(error) => error,
            error => panic!("{error}"),
        }
    };
    let wrong_key = refused(receiver("other"), &headers, &body);
    assert_eq!(wrong_key, VerifyError::NoMatch);
    let mut tampered = body.clone();
    tampered[0] ^= 1;
    let tampered = refused(receiver("key"), &headers, &tampered);
    assert_eq!(tampered, VerifyError::NoMatch);
    let signature = headers["x-webhook-signature"].to_str().unwrap();
    let bare = signature.strip_prefix("sha256=").unwrap();
    for value in [bare, &format!("sha1={bare}"), ""] {
        let mut headers = headers.clone();
        headers.insert("x-webhook-signature", value.parse().unwrap());
        let malformed = refused(receiver("key"), &headers, &body);
        assert_eq!(malformed, VerifyError::MalformedHeader("signature"));
    }
    let missing = refused(receiver("key"), &HeaderMap::new(), &body);
    assert_eq!(missing, VerifyError::MissingHeader("timestamp"));
    assert!(TimestampedVerifier::new("").is_err());
    assert!(TimestampedSigner::new("").is_err());
}

#[tokio::test]
async fn a_genuine_body_that_is_no_event_is_refused_as_such() {
    let secret = Secret::generate();
    let mut headers = HeaderMap::new();
    let now = Timestamp::now();
    standard(&secret).sign("m", now, b"{}", &mut headers);
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let receiver = InstanceReceiver::new(Verifier::new(secret), notifier);
    let error = receiver.receive(&headers, b"{}", now).unwrap_err();
    assert!(matches!(error, ReceiveError::NotAnEvent(_)));
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_instance_without_a_usable_address_is_an_error() {
    let router = started(standard(&Secret::generate()));
    let event = event("x").await;
    let unknown = route(&router, &event).await.unwrap_err();
    assert_eq!(
        unknown.source().unwrap().to_string(),
        "the instance has no known address"
    );
    let bad = router.route(&instance("nonsense".into()), &event).await;
    assert!(
        bad.unwrap_err()
            .source()
            .unwrap()
            .to_string()
            .contains("url")
    );
}

#[tokio::test]
async fn a_resolver_says_where_an_instance_is() {
    let server = server().await;
    let uri = server.uri();
    let router = InstanceRouter::builder(standard(&Secret::generate()))
        .resolver(move |to| (to.instance_id == "known").then(|| format!("{uri}/200")))
        .build()
        .unwrap();
    router.start();
    let event = event("x").await;
    let known = RoutingInfo {
        instance_id: "known".to_owned(),
        ..RoutingInfo::default()
    };
    router.route(&known, &event).await.unwrap();
    assert_eq!(requests(&server).await.len(), 1);
    route(&router, &event).await.unwrap_err();
    router.stop().await;
}

#[tokio::test]
async fn an_instance_that_refuses_is_an_error_after_one_attempt() {
    let server = server().await;
    let router = started(standard(&Secret::generate()));
    let to = instance(format!("{}/500", server.uri()));
    router.route(&to, &event("x").await).await.unwrap_err();
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn an_instance_router_that_was_stopped_hands_nothing_over() {
    let server = server().await;
    let router = started(standard(&Secret::generate()));
    router.stop().await;
    router.start();
    let to = instance(format!("{}/200", server.uri()));
    router.route(&to, &event("x").await).await.unwrap_err();
    assert_eq!(requests(&server).await.len(), 0);
}

/// Replies 200, and notes the host of each request.
#[derive(Debug, Clone, Default)]
struct Hosts(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Transport for Hosts {
    async fn send(
        &self,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<ResponseBody>, AttemptError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push(host);
        Ok(http::Response::new(ResponseBody::new(
            http_body_util::Empty::new(),
        )))
    }
}

#[tokio::test]
async fn calls_for_one_id_at_the_same_time_leave_the_endpoint_and_the_filter_of_the_same_call() {
    let hosts = Hosts::default();
    let sender = Sender::builder().transport(hosts.clone()).build().unwrap();
    let dispatcher = Dispatcher::builder().sender(sender).build().unwrap();
    dispatcher.start();
    let router = WebhookRouter::new(dispatcher);
    let (mut events, types) = (Vec::new(), ["one", "two"]);
    for event_type in types {
        events.push(event(event_type).await);
    }
    for round in 0..500 {
        std::thread::scope(|scope| {
            for event in &events {
                let (router, event_type) = (&router, event.event_type.clone());
                scope.spawn(move || {
                    let endpoint = Endpoint::new(format!("http://{event_type}/")).unwrap();
                    router.insert("a", endpoint, EventFilter::only([event_type]));
                });
            }
            if round % 2 == 0 {
                scope.spawn(|| router.remove("a"));
            }
        });
        let is_there = !router.dispatcher().endpoints().is_empty();
        let mut sent = 0;
        for event in &events {
            route(&router, event).await.unwrap();
            for host in std::mem::take(&mut *hosts.0.lock().unwrap()) {
                assert_eq!(host, event.event_type.as_str());
                sent += 1;
            }
        }
        assert_eq!(sent, usize::from(is_there));
        router.remove("a");
        assert!(router.dispatcher().endpoints().is_empty());
    }
}
