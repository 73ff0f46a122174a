//! Many endpoints: one pool of workers, and a lane for each.

mod circuits;
mod endpoints;
mod gone;
mod groups;
mod limits;
mod outcomes;
mod unclaimed;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::retry::RetryBudget;
use tidings::{
    DeliveryError, DeliveryErrorCause, Dispatcher, DispatcherBuilder, Endpoint, EndpointId,
    LaneConfig, LaneStatus, Refusal, Speed,
};
use tidings_test_support::{Gate, Reply};
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

/// A receiver that replies by path.
///
/// | path | reply |
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
    assert!(dispatcher.insert("a", server.endpoint("/ok/a")));
    assert!(dispatcher.insert("b", server.endpoint("/ok/b")));
    for _ in 0..20 {
        dispatcher.notify("a", "x").unwrap();
    }
    dispatcher.enqueue("b", "x").await.unwrap();
    let delivered = dispatcher.deliver("b", "x").await.unwrap();
    assert_eq!(delivered.attempts.len(), 1);
    dispatcher.stop().await;
    assert_eq!(server.requests("/ok/a"), 20);
    assert_eq!(server.requests("/ok/b"), 2);
    assert!(errors.try_recv().is_err());
}

#[tokio::test]
async fn it_needs_a_start_and_its_stop_is_final() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let endpoint = Endpoint::new("http://127.0.0.1:9/").unwrap();
    dispatcher.insert("a", endpoint);
    let refused = dispatcher.notify("a", "x");
    assert_eq!(refused.unwrap_err().reason(), Refusal::NotStarted);
    dispatcher.stop().await;
    dispatcher.start();
    let refused = dispatcher.notify("a", "x");
    assert_eq!(refused.unwrap_err().reason(), Refusal::Stopped);
    let refused = dispatcher.enqueue("a", "x").await;
    assert_eq!(refused.unwrap_err().reason(), Refusal::Stopped);
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_returned_with_its_endpoint() {
    let server = Server::start().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(in_an_hour()));
    dispatcher.insert("dead", server.endpoint("/dead"));
    dispatcher.insert("bad", server.endpoint("/status/500"));
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
async fn the_ends_of_the_ranges_are_allowed_and_what_is_beyond_is_not() {
    const NANOSECOND: Duration = Duration::from_nanos(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    let builder = Dispatcher::builder;
    let lane = |change: fn(LaneConfig) -> LaneConfig| builder().lane(change(LaneConfig::default()));
    let budget = |share, trickle| {
        let budget = RetryBudget::default().with_share(share);
        let budget = budget.with_trickle(trickle);
        builder().lane(LaneConfig::default().with_retry_budget(budget))
    };
    for allowed in [
        builder().workers(1),
        builder().workers(10_000),
        builder().max_slow(1),
        builder().max_slow(10_000),
        builder().slow_after(NANOSECOND),
        builder().slow_after(HOUR),
        builder().max_in_flight_per_host(1),
        builder().queue_size(1),
        builder().queue_size(10_000_000),
        lane(|lane| lane.with_queue_size(10_000_000)),
        lane(|lane| lane.with_in_flight(10_000, 10_000)),
        lane(|lane| lane.with_rate_limit(1_000_000, DAY)),
        budget(0.0, NANOSECOND),
        budget(10.0, DAY),
    ] {
        allowed.build().unwrap();
    }
    for (refused, field) in [
        (builder().workers(10_001), "workers"),
        (builder().max_slow(10_001), "max_slow"),
        (builder().slow_after(HOUR + NANOSECOND), "slow_after"),
        (builder().queue_size(10_000_001), "queue_size"),
        (lane(|lane| lane.with_in_flight(1, 10_001)), "in_flight"),
        (
            lane(|lane| lane.with_rate_limit(1, DAY + NANOSECOND)),
            "rate_limit",
        ),
        (budget(10.1, DAY), "retry_budget"),
        (budget(0.0, DAY + NANOSECOND), "retry_budget"),
        (budget(0.0, Duration::ZERO), "retry_budget"),
    ] {
        assert_eq!(refused.build().unwrap_err().field(), field);
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
        (builder().group_parts(0), "group_parts"),
        (builder().queue_size(0), "queue_size"),
        (builder().lane(lane().with_queue_size(0)), "queue_size"),
        (builder().lane(lane().with_in_flight(0, 1)), "in_flight"),
        (builder().lane(lane().with_in_flight(2, 1)), "in_flight"),
        (
            builder().lane(lane().with_retry(support::at_once(0))),
            "max_attempts",
        ),
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
