//! Webhooks of one server on a file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_bench::{Latencies, Rate, Row, Target, is_quick, number};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::arrivals::{Arrivals, receive};
use crate::load::POSTERS;
use crate::server::{FILE, Poster, Server};
use crate::{floor, raw};

const USERS: usize = 100;
const STALLED: usize = 100;

pub(crate) async fn throughput(length: Duration) {
    for (endpoints, target) in [(1, 10_000.0), (USERS, 12_000.0)] {
        let accepted = accept(&Server::start(), endpoints, length).await;
        let name = match endpoints {
            1 => "accept to webhook, 64 posters, one endpoint".to_owned(),
            _ => format!("accept to webhook, 64 posters, {endpoints} endpoints"),
        };
        Row::rate(&name, "webhooks/s", accepted.arrived)
            .beside("SQLite alone, 64 a commit", raw::commits(POSTERS, length))
            .target(Target::AtLeast(target))
            .target(Target::P99(100.0))
            .note(accepted.note())
            .emit();
    }
}

/// What was accepted, and sent as webhooks.
pub(crate) struct Accepted {
    pub(crate) posted: Rate,
    /// With the time from the post to the arrival.
    pub(crate) arrived: Rate,
    /// How many had not arrived when the last was accepted.
    behind: usize,
    /// Processor time of each, in microseconds.
    pub(crate) cpu: f64,
    count: usize,
}

impl Accepted {
    pub(crate) fn note(&self) -> String {
        format!(
            "{} under way at the end, {:.0} µs of processor time for each",
            self.behind, self.cpu
        )
    }
}

/// Posts for a while, and waits for the webhooks.
pub(crate) async fn accept(server: &Server, endpoints: usize, length: Duration) -> Accepted {
    let arrivals = Arc::<Arrivals>::default();
    for n in 0..endpoints {
        let url = receive(&arrivals, Duration::ZERO).await;
        let owner = match endpoints {
            1 => String::new(),
            _ => format!("/users/user{n}"),
        };
        server.create_endpoint(&owner, &url).await;
    }
    post_and_wait(server, &arrivals, endpoints > 0, USERS, length).await
}

/// The same notifications to the same users, with an endpoint for each type of them or for each user: every
/// notification becomes one webhook. All endpoints are at one receiver.
pub(crate) async fn to_endpoints(
    users: usize,
    of_each_user: bool,
    length: Duration,
) -> ToEndpoints {
    let arrivals = Arc::<Arrivals>::default();
    let url = receive(&arrivals, Duration::ZERO).await;
    let server = with_endpoints(users, of_each_user, &url).await;
    let accepted = post_and_wait(&server, &arrivals, true, users, length).await;
    let alone = with_endpoints(users, of_each_user, &url).await.end();
    let file = alone.as_ref().unwrap().path().join(FILE);
    ToEndpoints {
        alone: floor::webhooks(&file, users, accepted.count),
        accepted,
    }
}

/// What was sent to endpoints, and what a webhook takes SQLite alone.
pub(crate) struct ToEndpoints {
    pub(crate) accepted: Accepted,
    pub(crate) alone: floor::Alone,
}

async fn with_endpoints(users: usize, of_each_user: bool, url: &str) -> Server {
    let server = Server::start();
    if of_each_user {
        for n in 0..users {
            let owner = format!("/users/user{n}");
            server.create_endpoint(&owner, url).await;
        }
    } else {
        for n in 0..TYPES {
            server.create_endpoint_for(&type_of(n), url).await;
        }
    }
    server
}

/// The types of what is posted.
pub(crate) const TYPES: usize = 10;

pub(crate) fn type_of(user: usize) -> String {
    format!("order.kind{}", user % TYPES)
}

/// What posters have got replies for.
struct Posted {
    accepted: HashMap<String, Instant>,
    latencies: Latencies,
    started: Instant,
    elapsed: Duration,
}

async fn post_from(server: &Server, users: usize, length: Duration) -> Posted {
    let posting = Arc::new(AtomicBool::new(true));
    let started = Instant::now();
    let mut posters = JoinSet::new();
    for n in 0..POSTERS {
        let address = server.address.clone();
        posters.spawn(post_until(address, n, users, Arc::clone(&posting)));
    }
    tokio::time::sleep(length).await;
    posting.store(false, Ordering::Relaxed);
    let (mut accepted, mut latencies) = (HashMap::new(), Latencies::default());
    for (of_one, times) in posters.join_all().await {
        accepted.extend(of_one);
        latencies.extend(times);
    }
    Posted {
        accepted,
        latencies,
        started,
        elapsed: started.elapsed(),
    }
}

async fn post_and_wait(
    server: &Server,
    arrivals: &Arrivals,
    wait: bool,
    users: usize,
    length: Duration,
) -> Accepted {
    let before = server.process.cpu();
    let posted = post_from(server, users, length).await;
    let count = posted.accepted.len();
    let expected = if wait { count } else { 0 };
    let behind = expected - arrivals.count().min(expected);
    arrivals.wait_for(expected).await;
    Accepted {
        posted: Rate::new(count, posted.elapsed, &posted.latencies),
        arrived: Rate::new(
            expected,
            posted.started.elapsed(),
            &arrivals.latencies(&posted.accepted),
        ),
        behind,
        cpu: (server.process.cpu() - before) * 1e6 / number(count),
        count,
    }
}

pub(crate) async fn isolation(length: Duration) {
    let backlog = if is_quick() { 10_000 } else { 100_000 };
    let server = Server::start();
    let arrivals = Arc::<Arrivals>::default();
    let url = receive(&arrivals, Duration::ZERO).await;
    server.create_endpoint("/users/healthy", &url).await;
    let mut poster = Poster::connect(&server.address).await;
    let idle = healthy(&mut poster, &arrivals, length).await;
    let _held = stall(&server, &mut poster, backlog).await;
    let cpu = server.process.cpu();
    tokio::time::sleep(length).await;
    let cores = (server.process.cpu() - cpu) / length.as_secs_f64();
    let busy = healthy(&mut poster, &arrivals, length).await;
    Row::time(
        &format!(
            "accept to webhook, 50 per second, {backlog} deliveries to {STALLED} stalled endpoints"
        ),
        &busy,
    )
    .beside("alone", &idle)
    .target(Target::Ratio(0.8))
    .note(format!("the stalled deliveries take {cores:.3} processors"))
    .emit();
}

/// Makes so many deliveries to endpoints that never reply. Returns what holds their connections.
pub(crate) async fn stall(
    server: &Server,
    poster: &mut Poster,
    deliveries: usize,
) -> AbortOnDropHandle<()> {
    // At an address of its own: attempts at one host have a common limit.
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let held = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            held.push(socket);
        }
    }));
    for n in 0..STALLED {
        server
            .create_endpoint(&format!("/users/stalled{n}"), &url)
            .await;
    }
    let users: Vec<_> = (0..STALLED).map(|n| format!("\"stalled{n}\"")).collect();
    let users = users.join(",");
    for n in 0..deliveries / STALLED {
        let body = format!(r#"{{"user_ids":[{users}],"payload":{n}}}"#);
        poster.post("/v1/notifications", &body).await;
    }
    held
}

/// Posts fifty a second, and returns how long they took to arrive. First waits for the fan-out of what is accepted:
/// it is done when a later event of the healthy endpoint has arrived.
pub(crate) async fn healthy(
    poster: &mut Poster,
    arrivals: &Arrivals,
    length: Duration,
) -> Latencies {
    let before = arrivals.count();
    poster.notify("healthy").await;
    arrivals.wait_for(before + 1).await;
    let (started, before) = (Instant::now(), arrivals.count());
    let mut accepted = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while started.elapsed() < length {
        ticks.tick().await;
        let start = Instant::now();
        accepted.insert(poster.notify("healthy").await, start);
    }
    arrivals.wait_for(before + accepted.len()).await;
    arrivals.latencies(&accepted)
}

/// Many events to one endpoint that takes its time.
pub(crate) async fn burst() {
    let burst = if is_quick() { 1000 } else { 4000 };
    let server = Server::start();
    let arrivals = Arc::<Arrivals>::default();
    let delay = Duration::from_millis(20);
    let url = receive(&arrivals, delay).await;
    server.create_endpoint("", &url).await;
    let items: Vec<_> = (0..burst)
        .map(|n| format!(r#"{{"user_id":"burst","payload":{n}}}"#))
        .collect();
    let body = format!(r#"{{"notifications":[{}]}}"#, items.join(","));
    let started = Instant::now();
    let mut poster = Poster::connect(&server.address).await;
    poster.post("/v1/notifications/batch", &body).await;
    arrivals.wait_for(burst).await;
    let took = started.elapsed();
    let order = arrivals.order();
    let moved: usize = order
        .iter()
        .enumerate()
        .map(|(at, seq)| at.abs_diff(seq - 1))
        .sum();
    let most = arrivals.most_at_once.load(Ordering::Relaxed);
    let ideal = delay.as_secs_f64() * number(burst) / number(most);
    Row::cost(
        &format!("{burst} events to an endpoint that takes 20 ms: the last has arrived after"),
        "s",
        took.as_secs_f64(),
    )
    .beside("all requests of the window busy", ideal)
    .note(format!(
        "{most} requests at once at most; events are {:.1} places from their order",
        number(moved) / number(burst)
    ))
    .emit();
}

/// Posts to these users in turn; returns when each event was posted, and how long each reply took.
async fn post_until(
    address: String,
    n: usize,
    users: usize,
    posting: Arc<AtomicBool>,
) -> (HashMap<String, Instant>, Latencies) {
    let mut poster = Poster::connect(&address).await;
    let (mut accepted, mut latencies) = (HashMap::new(), Latencies::default());
    for number in (n..).step_by(POSTERS) {
        if !posting.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        let user = number % users;
        let id = poster
            .notify_of(&type_of(user), &format!("user{user}"))
            .await;
        accepted.insert(id, start);
        latencies.add(start.elapsed());
    }
    (accepted, latencies)
}
