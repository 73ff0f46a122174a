//! Outcomes whose callers give up: each is reported to a callback, once, whenever that happens.

use std::sync::Mutex;

use async_trait::async_trait;
use http::{Request, Response};
use tidings::router::{EventFilter, WebhookRouter};
use tidings::transport::{RequestBody, ResponseBody, Transport};
use tidings::{AttemptError, Client, ErrorKind, Message, Sender};
use tidings_notify::{Draft, Event, EventType, MemoryStore, Notifier, Payload, UserId};
use tidings_notify::{Router, RoutingInfo};
use tidings_test_support::{Receiver, Script};
use tokio::time::sleep;

use super::*;

const REMOVED: &str = "the endpoint was removed";

/// What an endpoint did not get, and what it got, by endpoint and message.
#[derive(Default)]
struct Reports(Mutex<HashMap<(String, String), usize>>);

impl Reports {
    fn add(&self, id: &EndpointId, message: &Message) {
        let pair = (id.to_string(), message.id().to_owned());
        *self.0.lock().unwrap().entry(pair).or_default() += 1;
    }

    fn count(&self, id: &str, message: &str) -> usize {
        let pair = (id.to_owned(), message.to_owned());
        let reports = self.0.lock().unwrap();
        reports.get(&pair).copied().unwrap_or_default()
    }
}

/// A started dispatcher that counts the outcomes that it reports.
fn counting(builder: DispatcherBuilder) -> (Dispatcher, Arc<Reports>) {
    let reports = Arc::new(Reports::default());
    let (delivered, failed) = (Arc::clone(&reports), Arc::clone(&reports));
    let dispatcher = builder
        .on_delivered(move |id, outcome| delivered.add(id, &outcome.message))
        .on_error(move |id, error| failed.add(id, error.message()))
        .build()
        .unwrap();
    dispatcher.start();
    (dispatcher, reports)
}

fn to(receiver: &Receiver) -> Endpoint {
    Endpoint::new(receiver.url("/")).unwrap()
}

fn named(id: impl Into<String>) -> Message {
    Message::from("x").with_id(id.into()).unwrap()
}

/// Waits until nothing of an endpoint is queued or under way.
async fn idle(dispatcher: &Dispatcher, id: &str) {
    while status(dispatcher, id).queued > 0 || status(dispatcher, id).in_flight > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_failure_that_arrived_but_was_not_seen_is_reported() {
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(in_an_hour()));
    dispatcher.insert("a", Endpoint::new("http://127.0.0.1:9/").unwrap());
    dispatcher.open_circuit("a");
    let mut waiting = Box::pin(dispatcher.deliver("a", "x"));
    assert!(support::is_pending(waiting.as_mut()).await);
    assert_eq!(dispatcher.remove("a").unwrap().len(), 1);
    assert!(errors.try_recv().is_err());
    drop(waiting);
    let (id, error) = errors.try_recv().unwrap();
    assert_eq!(id.as_str(), "a");
    assert_eq!(error.cause().to_string(), REMOVED);
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn a_success_that_arrived_but_was_not_seen_is_reported() {
    let receiver = receiver(Reply::ok()).await;
    let (dispatcher, reports) = counting(Dispatcher::builder());
    dispatcher.insert("a", to(&receiver));
    let mut waiting = Box::pin(dispatcher.deliver("a", named("m")));
    assert!(support::is_pending(waiting.as_mut()).await);
    idle(&dispatcher, "a").await;
    assert_eq!(reports.count("a", "m"), 0);
    drop(waiting);
    assert_eq!(reports.count("a", "m"), 1);
}

#[tokio::test]
async fn an_outcome_that_its_caller_has_seen_is_not_reported() {
    let receiver = receiver(Script::sequence(
        [Reply::ok()],
        Reply::new(StatusCode::NOT_FOUND),
    ))
    .await;
    let (dispatcher, reports) = counting(Dispatcher::builder());
    dispatcher.insert("a", to(&receiver));
    dispatcher.deliver("a", named("works")).await.unwrap();
    dispatcher.deliver("a", named("fails")).await.unwrap_err();
    dispatcher.stop().await;
    assert!(reports.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_client_abandons_before_its_caller_gives_up_is_reported() {
    let receiver = support::silent().await;
    let (report, mut errors) = mpsc::channel(10);
    let client = Client::builder(receiver.url("/"))
        .on_error(move |error| report.try_send(error).unwrap())
        .build()
        .unwrap();
    client.start();
    let mut waiting = Box::pin(client.deliver("x"));
    assert!(support::is_pending(waiting.as_mut()).await);
    assert_eq!(client.stop_within(Duration::ZERO).await.len(), 1);
    drop(waiting);
    let error = errors.try_recv().unwrap();
    assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
}

async fn event() -> Event {
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let draft = Draft::new(
        UserId::new("ann").unwrap(),
        EventType::new("x").unwrap(),
        Payload::parse("{}").unwrap(),
    );
    notifier.push(draft).await.unwrap()
}

#[tokio::test]
async fn a_route_that_is_dropped_leaves_every_outcome_to_the_callbacks() {
    let server = Server::start().await;
    let (dispatcher, reports) = counting(Dispatcher::builder().lane(in_an_hour()));
    let router = WebhookRouter::new(dispatcher.clone());
    for (id, path) in [
        ("works", "/ok"),
        ("fails", "/status/404"),
        ("down", "/dead"),
    ] {
        router.insert(id, server.endpoint(path), EventFilter::all());
    }
    let event = event().await;
    let routing = tokio::spawn({
        let (router, event) = (router.clone(), event.clone());
        async move { router.route(&RoutingInfo::default(), &event).await }
    });
    while server.requests("/dead") == 0 {
        yield_now().await;
    }
    idle(&dispatcher, "works").await;
    idle(&dispatcher, "fails").await;
    // The route has seen both outcomes, but its caller has not.
    for _ in 0..10 {
        yield_now().await;
    }
    routing.abort();
    assert!(routing.await.unwrap_err().is_cancelled());
    let message = event.id.to_string();
    for (id, expected) in [("works", 1), ("fails", 1), ("down", 0)] {
        assert_eq!(reports.count(id, &message), expected, "{id}");
    }
    router.remove("down").unwrap();
    dispatcher.stop_within(Duration::ZERO).await;
    for id in ["works", "fails", "down"] {
        assert_eq!(reports.count(id, &message), 1, "{id}");
    }
}

/// Does something else with each request, after a moment or without one.
#[derive(Debug)]
struct Moody;

#[async_trait]
impl Transport for Moody {
    async fn send(
        &self,
        _request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        for _ in 0..fastrand::u8(0..4) {
            yield_now().await;
        }
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = match fastrand::u8(0..8) {
            0 => return std::future::pending().await,
            1 => return Err(AttemptError::new(ErrorKind::Reset, "as the test wants")),
            2 => StatusCode::NOT_FOUND,
            3 => StatusCode::GONE,
            4 | 5 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        Ok(response)
    }
}

const IDS: [&str; 4] = ["a", "b", "c", "d"];

fn somewhere() -> Endpoint {
    let path = fastrand::u8(0..3);
    let endpoint = Endpoint::builder(format!("http://receiver.test/{path}"));
    endpoint.timeout(Duration::from_millis(5)).build().unwrap()
}

/// Changes the endpoints until it is aborted.
async fn disturb(router: WebhookRouter) {
    let dispatcher = router.dispatcher().clone();
    loop {
        let id = IDS[fastrand::usize(0..IDS.len())];
        match fastrand::u8(0..6) {
            0 => {
                router.remove(id);
            }
            1 => {
                dispatcher.open_circuit(id);
            }
            2 => {
                dispatcher.close_circuit(id);
            }
            3 => {
                let lane = at_once(fastrand::u32(1..3)).with_in_flight(1, 2);
                dispatcher.insert_with(id, somewhere(), &lane).unwrap();
            }
            _ => {
                router.insert(id, somewhere(), EventFilter::all());
            }
        }
        yield_now().await;
    }
}

/// A part of a millisecond.
fn a_moment() -> Duration {
    Duration::from_micros(fastrand::u64(0..500))
}

/// Delivers a message and gives up after a moment. Returns whether it saw the outcome.
async fn deliver_for_a_moment(dispatcher: Dispatcher, id: &'static str, name: String) -> bool {
    let mut delivering = Box::pin(async move { dispatcher.deliver(id, named(name)).await });
    // There is always a free place, so that the message is accepted now or never.
    if !support::is_pending(delivering.as_mut()).await {
        return true;
    }
    let delivering = tokio::spawn(delivering);
    sleep(a_moment()).await;
    delivering.abort();
    match delivering.await {
        Ok(_outcome) => true,
        Err(aborted) => {
            assert!(aborted.is_cancelled());
            false
        }
    }
}

async fn route_for_a_moment(router: WebhookRouter, event: Event) {
    let routing =
        tokio::spawn(async move { drop(router.route(&RoutingInfo::default(), &event).await) });
    sleep(a_moment()).await;
    routing.abort();
    drop(routing.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_dropped_and_changed_at_the_same_time_each_outcome_arrives_once() {
    let (mut dropped, mut seen) = (0, 0);
    for round in 0..30 {
        let sender = Sender::builder().transport(Moody).build().unwrap();
        let lane = LaneConfig::default().with_retry(support::at_once(2));
        let builder = Dispatcher::builder().sender(sender).workers(4).lane(lane);
        let (dispatcher, reports) = counting(builder);
        let router = WebhookRouter::new(dispatcher.clone());
        let disturbing = tokio::spawn(disturb(router.clone()));
        let mut calls = JoinSet::new();
        for number in 0..200 {
            let dispatcher = dispatcher.clone();
            calls.spawn(async move {
                let (id, name) = (IDS[number % IDS.len()], number.to_string());
                sleep(a_moment() * 10).await;
                let was_seen = deliver_for_a_moment(dispatcher, id, name.clone()).await;
                (id, name, was_seen)
            });
        }
        let mut dropped_calls = JoinSet::new();
        for _ in 0..20 {
            dropped_calls.spawn(route_for_a_moment(router.clone(), event().await));
        }
        if round % 2 == 0 {
            // In the midst of it.
            sleep(a_moment() * 10).await;
            dispatcher.stop_within(a_moment()).await;
        }
        dropped_calls.join_all().await;
        let calls = calls.join_all().await;
        disturbing.abort();
        assert!(disturbing.await.unwrap_err().is_cancelled());
        dispatcher.stop_within(a_moment()).await;
        for (id, name, was_seen) in calls {
            let expected = usize::from(!was_seen);
            assert_eq!(reports.count(id, &name), expected, "round {round}: {name}");
            *(if was_seen { &mut seen } else { &mut dropped }) += 1;
        }
        for (pair, count) in &*reports.0.lock().unwrap() {
            assert_eq!(*count, 1, "round {round}: {pair:?}");
        }
    }
    assert!(
        dropped > 100 && seen > 100,
        "{dropped} dropped, {seen} seen"
    );
}
