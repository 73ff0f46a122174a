//! Webhooks of one server on a file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::arrivals::{Arrivals, receive};
use crate::per_second;
use crate::server::{Poster, Server, notification};

const POSTERS: usize = 64;
const USERS: usize = 100;
const STALLED: usize = 100;
const BACKLOG: usize = 1000;
const BURST: usize = 4000;

pub(crate) async fn throughput(length: Duration) {
    for endpoints in [0, 1, USERS] {
        accept(&Server::start(), endpoints, length).await;
    }
    accept_batches(&Server::start(), length).await;
}

/// Posts for a while, waits for the webhooks, and prints the figures. Returns how many a second were accepted.
pub(crate) async fn accept(server: &Server, endpoints: usize, length: Duration) -> f64 {
    let arrivals = Arc::<Arrivals>::default();
    for n in 0..endpoints {
        let url = receive(&arrivals, Duration::ZERO).await;
        let owner = match endpoints {
            1 => String::new(),
            _ => format!("/users/user{n}"),
        };
        server.create_endpoint(&owner, &url).await;
    }
    let posting = Arc::new(AtomicBool::new(true));
    let started = Instant::now();
    let posters: Vec<_> = (0..POSTERS)
        .map(|n| tokio::spawn(post_until(server.address.clone(), n, Arc::clone(&posting))))
        .collect();
    tokio::time::sleep(length).await;
    posting.store(false, Ordering::Relaxed);
    let mut accepted = HashMap::new();
    for poster in posters {
        accepted.extend(poster.await.unwrap());
    }
    let rate = per_second(accepted.len(), started.elapsed());
    let expected = if endpoints == 0 { 0 } else { accepted.len() };
    let behind = expected - arrivals.count().min(expected);
    arrivals.wait_for(expected).await;
    let arrived = per_second(expected, started.elapsed());
    let cpu = server.cpu() * 1e6 / f64::from(u32::try_from(accepted.len()).unwrap());
    println!(
        "throughput, {endpoints} endpoints: {rate:.0} accepted/s, {arrived:.0} webhooks/s, \
         {behind} behind at the end, {cpu:.0} us of CPU each, {}",
        arrivals.latencies(&accepted)
    );
    rate
}

/// Asks as often as the posters can for what costs the server least. Returns the requests a second.
pub(crate) async fn ask(server: &Server, length: Duration) -> f64 {
    let asking = Arc::new(AtomicBool::new(true));
    let started = Instant::now();
    let callers: Vec<_> = (0..POSTERS)
        .map(|_| {
            let (address, asking) = (server.address.clone(), Arc::clone(&asking));
            tokio::spawn(async move {
                let mut caller = Poster::connect(&address).await;
                let mut count = 0;
                while asking.load(Ordering::Relaxed) {
                    caller.get("/health/live").await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    asking.store(false, Ordering::Relaxed);
    let mut count = 0;
    for caller in callers {
        count += caller.await.unwrap();
    }
    per_second(count, started.elapsed())
}

/// Posts batches of notifications, one for each user. Returns the notifications a second.
pub(crate) async fn accept_batches(server: &Server, length: Duration) -> f64 {
    let posting = Arc::new(AtomicBool::new(true));
    let notifications: Vec<_> = (0..USERS)
        .map(|user| notification(&format!("user{user}")))
        .collect();
    let body: Arc<str> = format!(r#"{{"notifications":[{}]}}"#, notifications.join(",")).into();
    let started = Instant::now();
    let posters: Vec<_> = (0..POSTERS)
        .map(|_| {
            let (address, posting, body) = (
                server.address.clone(),
                Arc::clone(&posting),
                Arc::clone(&body),
            );
            tokio::spawn(async move {
                let mut poster = Poster::connect(&address).await;
                let mut count = 0;
                while posting.load(Ordering::Relaxed) {
                    poster.post("/v1/notifications/batch", &body).await;
                    count += USERS;
                }
                count
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    posting.store(false, Ordering::Relaxed);
    let mut accepted = 0;
    for poster in posters {
        accepted += poster.await.unwrap();
    }
    let rate = per_second(accepted, started.elapsed());
    let cpu = server.cpu() * 1e6 / f64::from(u32::try_from(accepted).unwrap());
    println!("throughput, batches of {USERS}: {rate:.0} accepted/s, {cpu:.0} us of CPU each");
    rate
}

pub(crate) async fn isolation(length: Duration) {
    let server = Server::start();
    let arrivals = Arc::<Arrivals>::default();
    let url = receive(&arrivals, Duration::ZERO).await;
    server.create_endpoint("/users/healthy", &url).await;
    let mut poster = Poster::connect(&server.address).await;
    let idle = healthy(&mut poster, &arrivals, length).await;

    // At an address of its own: attempts at one host have a common limit.
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let _held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            held.push(socket);
        }
    });
    for n in 0..STALLED {
        server
            .create_endpoint(&format!("/users/stalled{n}"), &url)
            .await;
    }
    let users: Vec<_> = (0..STALLED).map(|n| format!("\"stalled{n}\"")).collect();
    let users = users.join(",");
    for n in 0..BACKLOG {
        let body = format!(r#"{{"user_ids":[{users}],"payload":{n}}}"#);
        poster.post("/v1/notifications", &body).await;
    }
    // The fan-out is done when a later event of the healthy endpoint has arrived.
    let before = arrivals.count();
    poster.notify("healthy").await;
    arrivals.wait_for(before + 1).await;
    let cpu = server.cpu();
    tokio::time::sleep(length).await;
    let cores = (server.cpu() - cpu) / length.as_secs_f64();
    let busy = healthy(&mut poster, &arrivals, length).await;
    println!("isolation, alone: {idle}");
    println!(
        "isolation, beside {} stalled deliveries: {busy}",
        STALLED * BACKLOG
    );
    println!("isolation, cost of the stalled backlog: {cores:.3} cores");
}

/// Posts fifty a second, and returns how long they took to arrive.
async fn healthy(poster: &mut Poster, arrivals: &Arrivals, length: Duration) -> String {
    let started = Instant::now();
    let before = arrivals.count();
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

pub(crate) async fn burst() {
    let server = Server::start();
    let arrivals = Arc::<Arrivals>::default();
    let delay = Duration::from_millis(20);
    let url = receive(&arrivals, delay).await;
    server.create_endpoint("", &url).await;
    let items: Vec<_> = (0..BURST)
        .map(|n| format!(r#"{{"user_id":"burst","payload":{n}}}"#))
        .collect();
    let body = format!(r#"{{"notifications":[{}]}}"#, items.join(","));
    let started = Instant::now();
    let mut poster = Poster::connect(&server.address).await;
    poster.post("/v1/notifications/batch", &body).await;
    arrivals.wait_for(BURST).await;
    let took = started.elapsed();
    let order = arrivals.order();
    let moved: usize = order
        .iter()
        .enumerate()
        .map(|(at, seq)| at.abs_diff(seq - 1))
        .sum();
    let most = arrivals.most_at_once.load(Ordering::Relaxed);
    let ideal = delay.mul_f64(
        per_second(BURST, Duration::from_secs(1)) / per_second(most, Duration::from_secs(1)),
    );
    println!(
        "burst of {BURST}: {:.2} s, {most} at once at most (ideal {:.2} s), mean displacement {:.1} places",
        took.as_secs_f64(),
        ideal.as_secs_f64(),
        per_second(moved, Duration::from_secs(1)) / per_second(BURST, Duration::from_secs(1)),
    );
}

async fn post_until(
    address: String,
    n: usize,
    posting: Arc<AtomicBool>,
) -> HashMap<String, Instant> {
    let mut poster = Poster::connect(&address).await;
    let mut accepted = HashMap::new();
    for number in (n..).step_by(POSTERS) {
        if !posting.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        let user = format!("user{}", number % USERS);
        accepted.insert(poster.notify(&user).await, start);
    }
    accepted
}
