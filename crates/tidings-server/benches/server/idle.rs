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

/// Bytes and microseconds a second of each stream.
struct Taken {
    bytes: f64,
    micros: f64,
}

pub(crate) async fn measure() {
    let count = if is_quick() { 1000 } else { 10_000 };
    // Streams of the peer are files, each of which several readers share.
    let users = count / 10;
    // A ping falls due for every stream while the processor time is measured.
    let interval = Duration::from_secs(if is_quick() { 2 } else { 20 });
    let ping = format!("{}s", interval.as_secs());
    let options = ["--max-streams", "12000", "--ping-interval", &ping];

    let options = [&options[..], &["--max-streams-per-user", "20"]].concat();
    let alone = |n: usize| format!("idle{n}");
    let shared = |n: usize| format!("idle{}", n % users);
    let sse = of_server(&options, count, interval, |n| streams::events(&alone(n))).await;
    let sse_shared = of_server(&options, count, interval, |n| streams::events(&shared(n))).await;
    let websocket = of_server(&options, count, interval, |n| streams::websocket(&alone(n))).await;
    let websocket_shared = of_server(&options, count, interval, |n| {
        streams::websocket(&shared(n))
    })
    .await;

    let peer = match Peer::start() {
        None => None,
        Some(peer) => {
            peer.create(users).await;
            let requests = |first: usize, count| {
                (first..first + count)
                    .map(|n| Peer::follow(n % users))
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
    for (what, taken) in [
        ("SSE streams, each of another user", &sse),
        ("SSE streams, ten of a user", &sse_shared),
        ("WebSockets, each of another user", &websocket),
        ("WebSockets, ten of a user", &websocket_shared),
    ] {
        Row::cost(
            &format!("memory of each of {count} idle {what}"),
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

async fn of_server(
    options: &[&str],
    count: usize,
    interval: Duration,
    request: impl Fn(usize) -> String + Send + Sync,
) -> Taken {
    let server = Server::with(options);
    let open = async |first: usize, count| {
        let requests = (first..first + count).map(&request).collect();
        streams::open_all(&server.address, requests, "caught_up").await
    };
    taken(&server.process, open, count, interval).await
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
