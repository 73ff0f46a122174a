//! cargo bench --bench fairness
//!
//! Measures how long deliveries to healthy endpoints take, with and without ten endpoints among a
//! thousand that never reply, and prints the ratio of the two 99th percentiles. The target is at
//! most 1.2.
//!
//! Both kinds of round alternate in one run, so that a neighbour on the same machine disturbs both
//! alike. Deliveries begin at a steady pace, whatever becomes of the earlier ones: waiting for a
//! free worker shows as latency instead of slowing the measurement down.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Duration;

use axum::http::{StatusCode, Uri};
use tidings::{Dispatcher, Endpoint, Speed};
use tidings_bench::{Latencies, Row, Target, is_quick};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval};

const ENDPOINTS: usize = 1000;
const DEAD: usize = 10;
const ROUNDS: usize = 4;
const DELIVERIES: usize = 2_000;
const PACE: Duration = Duration::from_millis(2);

#[tokio::main]
async fn main() {
    let url = serve().await;
    let (mut with, mut without) = (Latencies::default(), Latencies::default());
    // The first round of each kind warms up.
    let rounds = if is_quick() { 1 } else { ROUNDS };
    for round in 0..=rounds {
        let healthy_only = measure(&url, 0).await;
        let with_dead = measure(&url, DEAD).await;
        if round > 0 {
            without.extend(healthy_only);
            with.extend(with_dead);
        }
    }
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    Row::cost(
        "p99 of healthy endpoints beside ten that never reply",
        "ms",
        millis(with.p99()),
    )
    .beside("healthy endpoints alone", millis(without.p99()))
    .target(Target::Ratio(1.0 / 1.2))
    .emit();
    Row::time(
        "delivery to healthy endpoints beside ten that never reply",
        &with,
    )
    .beside("healthy endpoints alone", &without)
    .emit();
}

/// A server that never replies to `/dead`, and to everything else at once.
async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(|uri: Uri| async move {
        if uri.path() == "/dead" {
            std::future::pending::<()>().await;
        }
        StatusCode::OK
    });
    tokio::spawn(axum::serve(listener, app).into_future());
    url
}

/// The latencies of deliveries to the healthy ones among a thousand endpoints.
async fn measure(url: &str, dead: usize) -> Vec<Duration> {
    let dispatcher = Dispatcher::builder()
        .workers(16)
        .slow_after(Duration::from_millis(100))
        .max_in_flight_per_host(100_000)
        .on_error(|_, _| {})
        .build()
        .unwrap();
    dispatcher.start();
    for number in 0..dead {
        let id = format!("dead{number}");
        let endpoint = Endpoint::new(format!("{url}/dead")).unwrap();
        dispatcher.insert(id.as_str(), endpoint);
        for _ in 0..100 {
            dispatcher.notify(&id, "x").unwrap();
        }
        while dispatcher.status(&id).unwrap().speed != Speed::Slow {
            yield_now().await;
        }
    }
    let healthy: Vec<_> = (dead..ENDPOINTS).map(|number| number.to_string()).collect();
    for id in &healthy {
        let endpoint = Endpoint::new(format!("{url}/ok")).unwrap();
        dispatcher.insert(id.as_str(), endpoint);
    }
    let mut deliveries = JoinSet::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..DELIVERIES {
        pace.tick().await;
        let (dispatcher, id) = (dispatcher.clone(), healthy[number % healthy.len()].clone());
        deliveries.spawn(async move {
            let start = Instant::now();
            dispatcher.deliver(id, "x").await.unwrap();
            start.elapsed()
        });
    }
    let latencies = deliveries.join_all().await;
    dispatcher.stop_within(Duration::ZERO).await;
    latencies
}
