//! All streams reconnect at once, beside the peer.

use std::time::Duration;

use tidings_bench::{Latencies, Row, Target, is_quick};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::filled::fill;
use crate::live::at_a_pace;
use crate::peer::{self, Peer};
use crate::server::{Poster, Server, notification};
use crate::streams;

/// Events of each stream that reconnects.
const BEHIND: usize = 100;

/// Events a second of a stream that stays open.
const RATE: usize = 50;

/// Each stream of the peer is read by so many, because it is a file.
const READERS: usize = 10;

/// How long it took, and what a user of another server, which has nothing else to do, waited for meanwhile: for a
/// processor, when all of them are busy.
struct Reconnected {
    last: Duration,
    elsewhere: Latencies,
}

pub(crate) async fn measure(length: Duration) {
    let count = if is_quick() { 500 } else { 10_000 };
    let server = Server::with(&["--max-streams", "12000"]);
    fill(&server.address, count, BEHIND).await;
    let before = live(server.address.clone(), length).await;
    let address = server.address.clone();
    let meanwhile = apart(move || live(address, length));
    let requests = (0..count).map(|n| {
        format!("GET /v1/users/user{n}/events?since=start HTTP/1.1\r\nhost: localhost\r\n\r\n")
    });
    let ours = reconnect(&server.address, requests, "caught_up", length).await;
    let meanwhile = meanwhile.await.unwrap();
    drop(server);
    let theirs = match Peer::start() {
        None => Err(peer::MISSING),
        Some(peer) => Ok(of_peer(&peer, count, length).await),
    };
    let theirs = theirs.as_ref().map_err(|missing| *missing);
    Row::cost(
        &format!(
            "{count} streams reconnect, each {BEHIND} events behind: the last has caught up after"
        ),
        "s",
        ours.last.as_secs_f64(),
    )
    .beside_if(peer::NAME, theirs.map(|it| it.last.as_secs_f64()))
    .target(Target::AtMost(4.0))
    .emit();
    let p99 = |latencies: &Latencies| millis(latencies.p99());
    Row::cost(
        "p99 of another user's screen meanwhile",
        "ms",
        p99(&meanwhile),
    )
    .beside("p99 before", p99(&before))
    .target(Target::Ratio(0.8))
    .emit();
    Row::cost(
        "p99 of a screen of an idle server meanwhile",
        "ms",
        p99(&ours.elsewhere),
    )
    .beside_if(
        "beside durable-streams",
        theirs.map(|it| p99(&it.elsewhere)),
    )
    .emit();
}

async fn of_peer(peer: &Peer, count: usize, length: Duration) -> Reconnected {
    let streams = count / READERS;
    peer.create(streams).await;
    let mut poster = Poster::connect(&peer.address).await;
    let events = format!("[{}]", vec![notification("user0"); BEHIND].join(","));
    for n in 0..streams {
        poster.request(&Peer::append(n, &events)).await;
    }
    let requests = (0..count).map(|n| Peer::read(n % streams));
    reconnect(&peer.address, requests, peer::CAUGHT_UP, length).await
}

/// Opens all streams at the same moment, while another user is there already.
async fn reconnect(
    address: &str,
    requests: impl Iterator<Item = String>,
    until: &'static str,
    length: Duration,
) -> Reconnected {
    let idle_server = Server::start();
    let idle = idle_server.address.clone();
    let elsewhere = apart(move || live(idle, length));
    // The other user is there first.
    sleep(Duration::from_millis(200)).await;
    let (start, mut opening) = (Instant::now(), JoinSet::new());
    for request in requests {
        let address = address.to_owned();
        opening.spawn(async move {
            let socket = streams::open(&address, &request, until).await;
            (socket, start.elapsed())
        });
    }
    let (open, times): (Vec<_>, Vec<_>) = opening.join_all().await.into_iter().unzip();
    let elsewhere = elsewhere.await.unwrap();
    drop(open);
    Reconnected {
        last: times.into_iter().max().unwrap_or_default(),
        elsewhere,
    }
}

/// Measures in a thread of its own: what the server makes a user wait for, not what other streams do here.
fn apart<F: Future<Output = Latencies>>(
    measure: impl FnOnce() -> F + Send + 'static,
) -> oneshot::Receiver<Latencies> {
    let (sender, latencies) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // Nothing waits for it when the benchmark has failed.
        let _failed = sender.send(runtime.block_on(measure()));
    });
    latencies
}

async fn live(address: String, length: Duration) -> Latencies {
    at_a_pace(&address, &address, "another", 1, RATE, length).await
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
