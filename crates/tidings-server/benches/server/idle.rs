//! What idle streams take.

use std::time::Duration;

use tidings_bench::{Row, Target, is_quick, number};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::peer::{self, Peer};
use crate::process::Process;
use crate::server::Server;
use crate::streams;

/// What the first streams allocate for all is not counted.
const WARM: usize = 200;

/// Streams of the peer are files: several readers share one.
const PEER_STREAMS: usize = 1000;

/// Bytes and microseconds a second of each stream.
struct Taken {
    bytes: f64,
    micros: f64,
}

pub(crate) async fn measure() {
    let count = if is_quick() { 1000 } else { 10_000 };
    // A ping falls due for every stream while the processor time is measured.
    let interval = Duration::from_secs(if is_quick() { 2 } else { 20 });
    let ping = format!("{}s", interval.as_secs());
    let options = ["--max-streams", "12000", "--ping-interval", &ping];

    let server = Server::with(&options);
    let requests = |first: usize, count| {
        (first..first + count)
            .map(|n| streams::events(&format!("idle{n}")))
            .collect()
    };
    let open = async |first, count| {
        streams::open_all(&server.address, requests(first, count), "caught_up").await
    };
    let sse = taken(&server.process, open, count, interval).await;
    drop(server);

    let server = Server::with(&options);
    let requests = |first: usize, count| {
        (first..first + count)
            .map(|n| streams::websocket(&format!("idle{n}")))
            .collect()
    };
    let open = async |first, count| {
        streams::open_all(&server.address, requests(first, count), "caught_up").await
    };
    let websocket = taken(&server.process, open, count, interval).await;
    drop(server);

    let peer = match Peer::start() {
        None => None,
        Some(peer) => {
            peer.create(PEER_STREAMS).await;
            let requests = |first: usize, count| {
                (first..first + count)
                    .map(|n| Peer::follow(n % PEER_STREAMS))
                    .collect()
            };
            let open = async |first, count| {
                streams::open_all(&peer.address, requests(first, count), "event: control").await
            };
            Some(taken(&peer.process, open, count, interval).await)
        }
    };
    let bytes = peer.as_ref().map(|taken| taken.bytes).ok_or(peer::MISSING);
    let micros = peer.as_ref().map(|taken| taken.micros).ok_or(peer::MISSING);
    for (what, taken) in [("SSE stream", &sse), ("WebSocket", &websocket)] {
        Row::cost(
            &format!("memory of each of {count} idle {what}s"),
            "bytes",
            taken.bytes,
        )
        .beside_if(peer::NAME, bytes)
        .target(Target::AtMost(2000.0))
        .emit();
    }
    Row::cost(
        &format!("processor time of each of {count} idle SSE streams, a ping every {ping}"),
        "µs/s",
        sse.micros,
    )
    .beside_if("durable-streams, one every 15s", micros)
    .target(Target::AtMost(1.0))
    .emit();
}

async fn taken(
    process: &Process,
    open: impl AsyncFn(usize, usize) -> Vec<TcpStream>,
    count: usize,
    interval: Duration,
) -> Taken {
    let _warm = open(0, WARM).await;
    // What opening has caused is over.
    let settled = Duration::from_secs(1);
    sleep(settled).await;
    let before = process.memory();
    let _open = open(WARM, count).await;
    sleep(settled).await;
    let bytes = (process.memory() - before) / number(count);
    let before = process.cpu();
    sleep(interval).await;
    let micros = (process.cpu() - before) * 1e6 / interval.as_secs_f64() / number(count);
    Taken { bytes, micros }
}
