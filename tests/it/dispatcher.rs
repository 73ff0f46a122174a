use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::{
    DeliveryError, DeliveryErrorCause, Dispatcher, DispatcherBuilder, Endpoint, EndpointId,
    LaneConfig, LaneStatus, NotifyError, RetryBudget, Standing,
};
use tidings_test_support::{Answer, Gate};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, yield_now};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{self, HOUR, receiver};

type Errors = mpsc::Receiver<(EndpointId, DeliveryError)>;

/// A started dispatcher whose failures can be received.
fn started(builder: DispatcherBuilder) -> (Dispatcher, Errors) {
    let (report, errors) = mpsc::channel(100_000);
    let dispatcher = builder
        .on_error(move |id, error| report.try_send((id.clone(), error)).unwrap())
        .build()
        .unwrap();
    dispatcher.start();
    (dispatcher, errors)
}

fn status(dispatcher: &Dispatcher, id: &str) -> LaneStatus {
    dispatcher.status(id).unwrap()
}

/// A second attempt in an hour, which no test waits for.
fn in_an_hour() -> LaneConfig {
    LaneConfig::default().with_retry(support::in_an_hour())
}

/// Attempts one right after the other, as far as the budget allows.
fn at_once(attempts: u32) -> LaneConfig {
    LaneConfig::default()
        .with_retry(support::at_once(attempts))
        .without_circuit_breaker()
}

/// A receiver that answers by path.
///
/// | path | answer |
/// |---|---|
/// | `/ok/…` | 200 |
/// | `/dead/…` | none |
/// | `/status/<code>/…` | that status |
/// | `/held/…` | 200, once it has a permit |
struct Server {
    url: String,
    held: Arc<Semaphore>,
    requests: Arc<std::sync::Mutex<HashMap<String, usize>>>,
    concurrent: Arc<AtomicUsize>,
    most_concurrent: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(Semaphore::new(0));
        let requests = Arc::new(std::sync::Mutex::new(HashMap::new()));
        let concurrent = Arc::new(AtomicUsize::new(0));
        let most_concurrent = Arc::new(AtomicUsize::new(0));
        let app = axum::Router::new().fallback({
            let (held, requests) = (Arc::clone(&held), Arc::clone(&requests));
            let (concurrent, most) = (Arc::clone(&concurrent), Arc::clone(&most_concurrent));
            move |uri: Uri, _body: Bytes| async move {
                *requests
                    .lock()
                    .unwrap()
                    .entry(uri.path().to_owned())
                    .or_default() += 1;
                let now = concurrent.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                let mut parts = uri.path().split('/').skip(1);
                let status = match parts.next() {
                    Some("dead") => std::future::pending().await,
                    Some("held") => {
                        held.acquire().await.unwrap().forget();
                        StatusCode::OK
                    }
                    Some("status") => parts.next().unwrap().parse().unwrap(),
                    _ => StatusCode::OK,
                };
                concurrent.fetch_sub(1, Ordering::SeqCst);
                status
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            held,
            requests,
            concurrent,
            most_concurrent,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint::new(format!("{}{path}", self.url)).unwrap()
    }

    fn requests(&self, path: &str) -> usize {
        self.requests
            .lock()
            .unwrap()
            .get(path)
            .copied()
            .unwrap_or(0)
    }
}

#[tokio::test]
async fn each_message_goes_to_its_endpoint() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder());
    assert!(dispatcher.insert("a", server.endpoint("/ok/a")).unwrap());
    assert!(dispatcher.insert("b", server.endpoint("/ok/b")).unwrap());
    for _ in 0..20 {
        dispatcher.notify("a", "x").unwrap();
    }
    dispatcher.enqueue("b", "x").await.unwrap();
    let receipt = dispatcher.deliver("b", "x").await.unwrap();
    assert_eq!(receipt.attempts.len(), 1);
    dispatcher.stop().await;
    assert_eq!(server.requests("/ok/a"), 20);
    assert_eq!(server.requests("/ok/b"), 2);
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_hands_the_message_back() {
    let (dispatcher, _errors) = started(Dispatcher::builder());
    let error = dispatcher.notify("a", "x").unwrap_err();
    assert!(matches!(&error, NotifyError::UnknownEndpoint(message) if message.body() == "x"));
    let error = dispatcher.enqueue("a", "x").await.unwrap_err();
    assert!(matches!(error, NotifyError::UnknownEndpoint(_)));
    let error = dispatcher.deliver("a", "x").await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert!(dispatcher.remove("a").is_none());
    assert!(dispatcher.status("a").is_none());
    assert!(!dispatcher.open_circuit("a"));
}

#[tokio::test]
async fn it_needs_a_start_and_its_stop_is_final() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let endpoint = Endpoint::new("http://127.0.0.1:9/").unwrap();
    dispatcher.insert("a", endpoint).unwrap();
    let refused = dispatcher.notify("a", "x");
    assert!(matches!(refused, Err(NotifyError::NotStarted(_))));
    dispatcher.stop().await;
    dispatcher.start();
    let refused = dispatcher.notify("a", "x");
    assert!(matches!(refused, Err(NotifyError::Stopped(_))));
    let refused = dispatcher.enqueue("a", "x").await;
    assert!(matches!(refused, Err(NotifyError::Stopped(_))));
}

#[tokio::test]
async fn a_changed_endpoint_keeps_its_queue_and_the_next_attempt_uses_the_new_settings() {
    let server = Server::start().await;
    let (dispatcher, _errors) = started(Dispatcher::builder());
    dispatcher.insert("a", server.endpoint("/ok/old")).unwrap();
    dispatcher.open_circuit("a");
    for _ in 0..10 {
        dispatcher.notify("a", "x").unwrap();
    }
    assert!(!dispatcher.insert("a", server.endpoint("/ok/new")).unwrap());
    assert_eq!(status(&dispatcher, "a").queued, 10);
    assert_eq!(status(&dispatcher, "a").circuit, Some(CircuitState::Open));
    dispatcher.close_circuit("a");
    dispatcher.stop().await;
    assert_eq!(server.requests("/ok/old"), 0);
    assert_eq!(server.requests("/ok/new"), 10);
}

#[tokio::test]
async fn a_removed_endpoint_hands_back_what_waits_and_finishes_what_is_under_way() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder());
    dispatcher.insert("a", server.endpoint("/held/a")).unwrap();
    let under_way = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.deliver("a", "under way").await }
    });
    while server.requests("/held/a") == 0 {
        yield_now().await;
    }
    dispatcher.notify("a", "queued").unwrap();

    let left = dispatcher.remove("a").unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].body(), "queued");
    let (id, error) = errors.recv().await.unwrap();
    assert_eq!(id.as_str(), "a");
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert_eq!(error.message(), &left[0]);

    server.held.add_permits(1);
    under_way.await.unwrap().unwrap();
    assert!(dispatcher.endpoints().is_empty());
}

#[tokio::test]
async fn what_fails_after_its_endpoint_was_removed_is_not_tried_again() {
    let gate = Gate::new();
    let busy = Answer::new(StatusCode::SERVICE_UNAVAILABLE).after(gate.clone());
    let receiver = receiver(busy).await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(at_once(5)));
    let endpoint = Endpoint::new(receiver.url("/")).unwrap();
    dispatcher.insert("a", endpoint).unwrap();
    dispatcher.notify("a", "x").unwrap();
    receiver.request(1).await;
    dispatcher.remove("a").unwrap();
    gate.open();
    let (_id, error) = errors.recv().await.unwrap();
    assert!(matches!(error.cause(), DeliveryErrorCause::Removed));
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn those_who_wait_for_room_are_sent_away_when_their_endpoint_is_removed() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_queue_size(1);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", server.endpoint("/dead")).unwrap();
    dispatcher.open_circuit("a");
    dispatcher.notify("a", "queued").unwrap();
    let waiting = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.enqueue("a", "waits").await }
    });
    yield_now().await;
    dispatcher.remove("a").unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, NotifyError::UnknownEndpoint(message) if message.body() == "waits"));
}

#[tokio::test]
async fn each_queue_is_bounded_and_all_together_are() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_queue_size(3);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane).queue_size(5));
    for id in ["a", "b"] {
        dispatcher.insert(id, server.endpoint("/dead")).unwrap();
        dispatcher.open_circuit(id);
    }
    for _ in 0..3 {
        dispatcher.notify("a", "x").unwrap();
    }
    let full = dispatcher.notify("a", "x");
    assert!(matches!(full, Err(NotifyError::QueueFull(_))));
    dispatcher.notify("b", "x").unwrap();
    dispatcher.notify("b", "x").unwrap();
    let full = dispatcher.notify("b", "x");
    assert!(matches!(full, Err(NotifyError::QueueFull(_))));
    assert_eq!(dispatcher.queued(), 5);
    // What is removed makes room.
    dispatcher.remove("a").unwrap();
    dispatcher.notify("b", "x").unwrap();
}

#[tokio::test]
async fn circuits_open_and_close_by_hand_and_every_change_is_told() {
    let server = Server::start().await;
    let (tell, mut told) = mpsc::channel(100);
    let builder = Dispatcher::builder().on_circuit_change(move |id, state| {
        tell.try_send((id.to_string(), state)).unwrap();
    });
    let (dispatcher, _errors) = started(builder);
    dispatcher.insert("a", server.endpoint("/ok/a")).unwrap();
    assert!(dispatcher.open_circuit("a"));
    let change = |state| ("a".to_owned(), state);
    assert_eq!(told.recv().await.unwrap(), change(CircuitState::Open));

    let mut delivery = JoinSet::new();
    delivery.spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.deliver("a", "x").await }
    });
    while dispatcher.queued() == 0 {
        yield_now().await;
    }
    assert_eq!(server.requests("/ok/a"), 0);
    assert!(dispatcher.close_circuit("a"));
    assert_eq!(told.recv().await.unwrap(), change(CircuitState::Closed));
    delivery.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_circuit_that_trips_probes_and_closes_is_told_in_order() {
    let server = Server::start().await;
    let (tell, mut told) = mpsc::channel(100);
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(Duration::from_millis(20))
        .with_ramp(1);
    let builder = Dispatcher::builder()
        .lane(at_once(3).with_circuit_breaker(breaker))
        .on_circuit_change(move |_, state| tell.try_send(state).unwrap());
    let (dispatcher, _errors) = started(builder);
    dispatcher
        .insert("a", server.endpoint("/status/503"))
        .unwrap();
    dispatcher.notify("a", "x").unwrap();
    assert_eq!(told.recv().await, Some(CircuitState::Open));
    dispatcher.insert("a", server.endpoint("/ok")).unwrap();
    let mut last = CircuitState::Open;
    while last != CircuitState::Closed {
        let state = told.recv().await.unwrap();
        assert_ne!(state, last);
        last = state;
    }
    dispatcher.stop().await;
}

#[tokio::test]
async fn a_callback_may_use_the_dispatcher() {
    let server = Server::start().await;
    let slot: Arc<std::sync::OnceLock<Dispatcher>> = Arc::default();
    let (tell, mut told) = mpsc::channel(100);
    let inside = Arc::clone(&slot);
    let builder = Dispatcher::builder().on_circuit_change(move |id, state| {
        tell.try_send(state).unwrap();
        if state == CircuitState::Open {
            assert!(inside.get().unwrap().close_circuit(id));
        }
    });
    let (dispatcher, _errors) = started(builder);
    slot.set(dispatcher.clone()).unwrap();
    dispatcher.insert("a", server.endpoint("/ok")).unwrap();
    dispatcher.open_circuit("a");
    assert_eq!(told.recv().await, Some(CircuitState::Open));
    assert_eq!(told.recv().await, Some(CircuitState::Closed));
}

#[tokio::test]
async fn endpoints_of_one_host_share_its_limit() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_in_flight(4, 4);
    let builder = Dispatcher::builder().lane(lane).max_in_flight_per_host(3);
    let (dispatcher, _errors) = started(builder);
    for number in 0..10 {
        let id = number.to_string();
        let endpoint = server.endpoint(&format!("/held/{number}"));
        dispatcher.insert(id.as_str(), endpoint).unwrap();
        for _ in 0..5 {
            dispatcher.notify(&id, "x").unwrap();
        }
    }
    while server.concurrent.load(Ordering::SeqCst) < 3 {
        yield_now().await;
    }
    server.held.add_permits(50);
    dispatcher.stop().await;
    assert_eq!(server.most_concurrent.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn retries_to_a_failing_endpoint_stay_within_their_budget() {
    let server = Server::start().await;
    let budget = RetryBudget::default().with_share(0.2).with_trickle(HOUR);
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1000)
        .without_failure_rate();
    let lane = at_once(100)
        .with_retry_budget(budget)
        .with_circuit_breaker(breaker);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    let endpoint = server.endpoint("/status/503");
    dispatcher.insert("a", endpoint).unwrap();
    dispatcher.open_circuit("a");
    for _ in 0..50 {
        dispatcher.notify("a", "x").unwrap();
    }
    dispatcher.close_circuit("a");
    // Fifty first attempts, the ten retries that are saved up, and nothing more. Of the first
    // attempts' shares nothing is left, because the savings were full.
    while server.requests("/status/503") < 60 || status(&dispatcher, "a").in_flight > 0 {
        yield_now().await;
    }
    let left = dispatcher.stop_within(Duration::ZERO).await;
    assert_eq!(left.len(), 50);
    assert_eq!(server.requests("/status/503"), 60);
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_returned_with_its_endpoint() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(in_an_hour()));
    dispatcher.insert("dead", server.endpoint("/dead")).unwrap();
    dispatcher
        .insert("bad", server.endpoint("/status/500"))
        .unwrap();
    for _ in 0..3 {
        dispatcher.notify("dead", "x").unwrap();
        dispatcher.notify("bad", "x").unwrap();
    }
    while server.requests("/dead") < 1 || server.requests("/status/500") < 3 {
        yield_now().await;
    }
    let left = dispatcher.stop_within(Duration::ZERO).await;
    assert_eq!(left.len(), 6);
    for name in ["dead", "bad"] {
        let of_it = left.iter().filter(|(id, _)| id.as_str() == name);
        assert_eq!(of_it.count(), 3);
    }
    for _ in 0..6 {
        let (_id, error) = errors.recv().await.unwrap();
        assert!(matches!(error.cause(), DeliveryErrorCause::Abandoned));
    }
}

#[tokio::test]
async fn bad_settings_are_refused_by_name() {
    let builder = Dispatcher::builder;
    let lane = LaneConfig::default;
    for (builder, field) in [
        (builder().workers(0), "workers"),
        (builder().max_slow(0), "max_slow"),
        (builder().slow_after(Duration::ZERO), "slow_after"),
        (
            builder().max_in_flight_per_host(0),
            "max_in_flight_per_host",
        ),
        (builder().queue_size(0), "queue_size"),
        (builder().lane(lane().with_queue_size(0)), "queue_size"),
        (builder().lane(lane().with_in_flight(0, 1)), "in_flight"),
        (builder().lane(lane().with_in_flight(2, 1)), "in_flight"),
        (
            builder().lane(lane().with_retry_budget(RetryBudget::default().with_share(-1.0))),
            "retry_budget",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
    let dispatcher = builder().build().unwrap();
    let endpoint = Endpoint::new("http://example.com").unwrap();
    let bad = lane().with_in_flight(0, 1);
    let error = dispatcher.insert_with("a", endpoint, &bad).unwrap_err();
    assert_eq!(error.field(), "in_flight");
    assert!(dispatcher.endpoints().is_empty());
}

/// The claim of the whole design: of a thousand endpoints ten never answer, there are fewer workers
/// than that, and everything for the others is delivered while the ten hold one attempt each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_endpoints_do_not_hold_up_the_others() {
    const DEAD: usize = 10;
    const ENDPOINTS: usize = 1000;

    let server = Server::start().await;
    let builder = Dispatcher::builder()
        .workers(4)
        .slow_after(Duration::from_millis(20))
        .max_in_flight_per_host(10_000);
    let (dispatcher, mut errors) = started(builder);
    let dead: Vec<_> = (0..DEAD).map(|number| format!("dead{number}")).collect();
    for id in &dead {
        let endpoint = server.endpoint(&format!("/dead/{id}"));
        dispatcher.insert(id.as_str(), endpoint).unwrap();
        for _ in 0..100 {
            dispatcher.notify(id, "x").unwrap();
        }
    }
    let mut deliveries = JoinSet::new();
    for number in DEAD..ENDPOINTS {
        let id = number.to_string();
        let endpoint = server.endpoint("/ok");
        dispatcher.insert(id.as_str(), endpoint).unwrap();
        let dispatcher = dispatcher.clone();
        deliveries.spawn(async move { dispatcher.deliver(id, "x").await });
    }
    while let Some(delivered) = deliveries.join_next().await {
        delivered.unwrap().unwrap();
    }
    for id in &dead {
        while status(&dispatcher, id).standing != Standing::Slow {
            yield_now().await;
        }
        let status = status(&dispatcher, id);
        assert_eq!((status.in_flight, status.in_flight_limit), (1, 1));
        assert_eq!(status.queued, 99);
        assert_eq!(server.requests(&format!("/dead/{id}")), 1);
    }
    assert!(errors.try_recv().is_err());
    let left = dispatcher.stop_within(Duration::ZERO).await;
    assert_eq!(left.len(), DEAD * 100);
}
