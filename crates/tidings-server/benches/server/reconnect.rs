//! All streams reconnect at once, beside the peer.

use std::time::Duration;

use tidings_bench::{Latencies, Row, Target, is_quick};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::filled::fill;
use crate::live::at_a_pace;
use crate::peer::{self, Peer};
use crate::server::{Poster, Server, notification};
use crate::streams;

/// Events of each stream that reconnects.
const BEHIND: usize = 100;

/// Events a second of the stream that stays open.
const RATE: u32 = 50;

/// Each stream of the peer is read by so many, because it is a file.
const READERS: usize = 10;

/// How long it took, and what others waited for meanwhile.
struct Reconnected {
    last: Duration,
    /// Another user of the same server.
    meanwhile: Latencies,
    /// A user of another server, which has nothing else to do.
    elsewhere: Latencies,
}

pub(crate) async fn measure(length: Duration) {
    let count = if is_quick() { 500 } else { 10_000 };
    let (before, ours) = of_server(count, length).await;
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
    let meanwhile = || {
        let p99 = millis(ours.meanwhile.p99());
        Row::cost("p99 of another user's screen meanwhile", "ms", p99)
    };
    meanwhile()
        .beside("p99 before", millis(before.p99()))
        .target(Target::Ratio(0.8))
        .note(elsewhere(&ours))
        .emit();
    let row = meanwhile().beside_if(peer::NAME, theirs.map(|it| millis(it.meanwhile.p99())));
    match theirs {
        Ok(theirs) => row.note(format!("beside it: {}", elsewhere(theirs))).emit(),
        Err(_) => row.emit(),
    }
}

fn elsewhere(reconnected: &Reconnected) -> String {
    format!(
        "{:.1} ms at a server beside it that has nothing else to do",
        millis(reconnected.elsewhere.p99())
    )
}

/// Returns also what another user waited for before.
async fn of_server(count: usize, length: Duration) -> (Latencies, Reconnected) {
    let server = Server::with(&["--max-streams", "12000"]);
    fill(&server.address, count, BEHIND).await;
    let before = live(server.address.clone(), length).await;
    let requests = (0..count).map(|n| {
        format!("GET /v1/users/user{n}/events?since=start HTTP/1.1\r\nhost: localhost\r\n\r\n")
    });
    let address = server.address.clone();
    let another = move || live(address, length);
    let reconnected = reconnect(&server.address, requests, "caught_up", another, length).await;
    (before, reconnected)
}

async fn of_peer(peer: &Peer, count: usize, length: Duration) -> Reconnected {
    let streams = count / READERS;
    peer.create(streams + 1).await;
    let mut poster = Poster::connect(&peer.address).await;
    let events = format!("[{}]", vec![notification("user0"); BEHIND].join(","));
    for n in 0..streams {
        poster.request(&Peer::append(n, &events)).await;
    }
    let requests = (0..count).map(|n| Peer::read(n % streams));
    let address = peer.address.clone();
    let another = move || peer_live(address, streams, length);
    reconnect(&peer.address, requests, peer::CAUGHT_UP, another, length).await
}

/// Opens all streams at the same moment, while other users are there already.
async fn reconnect<F: Future<Output = Latencies>>(
    address: &str,
    requests: impl Iterator<Item = String>,
    until: &'static str,
    another: impl FnOnce() -> F + Send + 'static,
    length: Duration,
) -> Reconnected {
    // How long a request waits on a machine whose processors are all busy.
    let idle_server = Server::start();
    let idle = idle_server.address.clone();
    let meanwhile = apart(another);
    let elsewhere = apart(move || live(idle, length));
    // The other users are there first.
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
    let reconnected = Reconnected {
        last: times.into_iter().max().unwrap_or_default(),
        meanwhile: meanwhile.await.unwrap(),
        elsewhere: elsewhere.await.unwrap(),
    };
    drop(open);
    reconnected
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
    let rate = usize::try_from(RATE).unwrap();
    at_a_pace(&address, &address, "another", 1, rate, length).await
}

/// The same at the peer, with a stream of its own.
async fn peer_live(address: String, stream: usize, length: Duration) -> Latencies {
    let count = usize::try_from(length.as_secs()).unwrap() * usize::try_from(RATE).unwrap();
    let socket = streams::open(&address, &Peer::follow(stream), peer::CAUGHT_UP).await;
    let mut poster = Poster::connect(&address).await;
    let start = Instant::now();
    let arrivals = tokio::spawn(streams::arrivals(socket, count, start));
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    for _ in 0..count {
        ticks.tick().await;
        let event = Peer::append(stream, &streams::payload(start));
        poster.request(&event).await;
    }
    arrivals.await.unwrap().into_iter().collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
