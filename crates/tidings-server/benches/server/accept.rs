//! Accepting on SQLite, beside the peer and beside SQLite alone.

use std::time::Duration;

use tidings_bench::{Row, Target};

use crate::load::{self, POSTERS};
use crate::peer::{self, Peer};
use crate::raw;
use crate::server::{Server, notification, post};

const USERS: usize = 100;

/// Notifications of one request.
pub(crate) const BATCH: usize = 100;

pub(crate) fn singles(users: usize) -> Vec<Vec<u8>> {
    let one = |n| post("/v1/notifications", &notification(&format!("user{n}")));
    (0..users).map(one).collect()
}

/// A request with a notification for each of these users.
pub(crate) fn batch(users: std::ops::Range<usize>) -> Vec<u8> {
    let notifications: Vec<_> = users.map(|n| notification(&format!("user{n}"))).collect();
    let body = format!(r#"{{"notifications":[{}]}}"#, notifications.join(","));
    post("/v1/notifications/batch", &body)
}

pub(crate) async fn measure(length: Duration) {
    let server = Server::start();
    let singly = load::post(&server.address, singles(USERS), length).await;
    let cpu = micros(server.process.cpu(), singly.count);
    drop(server);
    let (beside, beside_cpu) = match Peer::start() {
        None => (Err(peer::MISSING), Err(peer::MISSING)),
        Some(peer) => {
            peer.create(USERS).await;
            let before = peer.process.cpu();
            let body = notification("user0");
            let appends = (0..USERS).map(|n| Peer::append(n, &body)).collect();
            let load = load::post(&peer.address, appends, length).await;
            (
                Ok(load.rate(1)),
                Ok(micros(peer.process.cpu() - before, load.count)),
            )
        }
    };
    Row::rate(
        "accept, one a request, 64 posters",
        "events/s",
        singly.rate(1),
    )
    .beside_if(peer::NAME, beside)
    .target(Target::Ratio(0.5))
    .emit();
    Row::cost("processor time of an accept", "µs", cpu)
        .beside_if(peer::NAME, beside_cpu)
        .target(Target::AtMost(30.0))
        .emit();
    Row::rate(
        "accept, one a request, 64 posters",
        "events/s",
        singly.rate(1),
    )
    .beside("SQLite alone, 64 a commit", raw::commits(POSTERS, length))
    .emit();

    let server = Server::start();
    let batches = load::post(&server.address, vec![batch(0..BATCH)], length).await;
    let cpu = micros(server.process.cpu(), batches.count * BATCH);
    drop(server);
    Row::rate(
        "accept, 100 a request, 64 posters",
        "events/s",
        batches.rate(BATCH),
    )
    .beside(
        "SQLite alone, 6,400 a commit",
        raw::commits(POSTERS * BATCH, length),
    )
    .target(Target::AtLeast(100_000.0))
    .note(format!("{cpu:.1} µs of processor time for an event"))
    .emit();
}

fn micros(cpu: f64, count: usize) -> f64 {
    cpu * 1e6 / tidings_bench::number(count)
}
