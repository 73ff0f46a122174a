//! What depends on how much there is already.

use std::sync::Arc;
use std::time::Duration;

use tidings_bench::{Latencies, Row, Target, is_quick, number};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::accept::{BATCH, batch, singles};
use crate::arrivals::{Arrivals, receive};
use crate::load;
use crate::raw;
use crate::server::{Poster, Server, post};
use crate::{streams, webhooks};

/// Events of each user before a start.
const EACH: usize = 100;

const STARTS: usize = 5;

/// An operation may take 1.25 times as long among many.
const GROWTH: Target = Target::Ratio(0.8);

/// Stores this many events for each of the users 0 to `users`, `BATCH` users a request.
pub(crate) async fn fill(address: &str, users: usize, each: usize) {
    let mut posters = JoinSet::new();
    // Batches of a user one after the other, of different users at the same time.
    for lane in 0..8 {
        let address = address.to_owned();
        posters.spawn(async move {
            let mut poster = Poster::connect(&address).await;
            for first in (lane * BATCH..users).step_by(8 * BATCH) {
                let request = batch(first..(first + BATCH).min(users));
                for _ in 0..each {
                    poster.request(&request).await;
                }
            }
        });
    }
    posters.join_all().await;
}

/// From starting the process to its first response.
pub(crate) async fn start() {
    let events = if is_quick() { 50_000 } else { 1_000_000 };
    let (empty, full) = (
        tempfile::tempdir_in(".").unwrap(),
        tempfile::tempdir_in(".").unwrap(),
    );
    let url = |folder: &tempfile::TempDir| {
        format!("sqlite:{}", folder.path().join("tidings.db").display())
    };
    {
        let server = Server::on(&url(&full));
        fill(&server.address, events / EACH, EACH).await;
    }
    // The first start of each makes the tables, or goes through what the kill has left.
    let (mut with, mut without) = (Latencies::default(), Latencies::default());
    for round in 0..=STARTS {
        for (folder, latencies) in [(&empty, &mut without), (&full, &mut with)] {
            let started = Instant::now();
            let server = Server::on(&url(folder));
            let mut caller = Poster::connect(&server.address).await;
            caller.get("/health/live").await;
            if round > 0 {
                latencies.add(started.elapsed());
            }
        }
    }
    Row::time(
        &format!("start to the first response, {events} events"),
        &with,
    )
    .beside("an empty database", &without)
    .target(Target::AtMost(50.0))
    .emit();
}

pub(crate) async fn growth(length: Duration) {
    among_users(length).await;
    among_endpoints(length).await;
    with_a_backlog(length).await;
    beside_streams(length).await;
}

async fn among_users(length: Duration) {
    let (few, many) = (1000, if is_quick() { 20_000 } else { 1_000_000 });
    let server = Server::start();
    fill(&server.address, few, 1).await;
    let before = load::post(&server.address, singles(few), length).await;
    fill(&server.address, many, 1).await;
    // Spread over all of them.
    let requests = (0..few)
        .map(|n| n * (many / few))
        .flat_map(|n| singles_of(n..n + 1))
        .collect();
    let after = load::post(&server.address, requests, length).await;
    let (before, after) = (before.rate(1), after.rate(1));
    let ours = longer(before.per_second, after.per_second);
    let alone = longer(
        raw::rate_among(few, few, length),
        raw::rate_among(few, many, length),
    );
    Row::rate(
        &format!("accept, one a request, {many} users"),
        "events/s",
        after,
    )
    .beside(&format!("{few} users"), before)
    .target(GROWTH)
    .note(format!(
        "an event takes {ours:.1} µs longer, in SQLite alone {alone:.1} µs longer"
    ))
    .emit();
}

/// How many microseconds longer an operation takes, by how many there are in a second.
fn longer(few: f64, many: f64) -> f64 {
    1e6 / many - 1e6 / few
}

fn singles_of(users: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    users
        .map(|n| {
            post(
                "/v1/notifications",
                &crate::server::notification(&format!("user{n}")),
            )
        })
        .collect()
}

async fn among_endpoints(length: Duration) {
    let many = if is_quick() { 500 } else { 10_000 };
    let few = webhooks::TYPES;
    let before = webhooks::to_endpoints(many, false, length).await;
    let after = webhooks::to_endpoints(many, true, length).await;
    let both = [&before, &after];
    let longer =
        |[few, many]: [f64; 2]| format!("{:.0} µs more ({few:.0} and {many:.0})", many - few);
    let ours = longer(both.map(|it| it.accepted.cpu));
    let alone = longer(both.map(|it| it.alone.cpu));
    let [few_alone, many_alone] = both.map(|it| it.alone.time);
    Row::rate(
        &format!("accept to webhook, {many} endpoints"),
        "webhooks/s",
        after.accepted.arrived,
    )
    .beside(&format!("{few} endpoints"), before.accepted.arrived)
    .target(GROWTH)
    .note(format!(
        "a webhook takes {ours} of processor time, what SQLite alone writes of it {alone}, and by the clock \
         {few_alone:.0} and {many_alone:.0} µs: ratio {:.2}",
        few_alone / many_alone
    ))
    .emit();
}

/// Undelivered events of endpoints that never reply.
async fn with_a_backlog(length: Duration) {
    let backlog = if is_quick() { 20_000 } else { 1_000_000 };
    let server = Server::start();
    let arrivals = Arc::<Arrivals>::default();
    let url = receive(&arrivals, Duration::ZERO).await;
    server.create_endpoint("/users/healthy", &url).await;
    let mut poster = Poster::connect(&server.address).await;
    let before = webhooks::healthy(&mut poster, &arrivals, length).await;
    let _held = webhooks::stall(&server, &mut poster, backlog).await;
    let after = webhooks::healthy(&mut poster, &arrivals, length).await;
    Row::time(
        &format!("accept to webhook, {backlog} undelivered to others"),
        &after,
    )
    .beside("nothing undelivered", &before)
    .target(GROWTH)
    .emit();
}

async fn beside_streams(length: Duration) {
    let many = if is_quick() { 500 } else { 10_000 };
    let server = Server::with(&["--max-streams", "12000"]);
    let _first = streams::open(&server.address, &streams::events("user0"), "caught_up").await;
    let before = load::post(&server.address, singles(100), length).await;
    let requests = (1..many)
        .map(|n| streams::events(&format!("other{n}")))
        .collect();
    let _open = streams::open_all(&server.address, requests, "caught_up").await;
    let after = load::post(&server.address, singles(100), length).await;
    let gained = number(after.count) / number(before.count);
    Row::rate(
        &format!("accept, one a request, {many} open streams"),
        "events/s",
        after.rate(1),
    )
    .beside("1 open stream", before.rate(1))
    .target(GROWTH)
    .note(format!("{gained:.2} of the requests"))
    .emit();
}
