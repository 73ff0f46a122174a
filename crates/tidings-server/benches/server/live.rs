//! From accepting to the screen.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tidings_bench::{Latencies, Row, Target, is_quick, number};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::bare;
use crate::server::{Poster, Server, post};
use crate::streams;

const FAN_OUT: usize = 1000;
const FAN_OUTS: usize = 50;
/// Notifications a second of `live`, for so many users.
const RATE: usize = 1000;
const USERS: usize = 50;

/// One event to 1,000 streams of its user, 50 per second.
pub(crate) async fn fan_out(length: Duration) {
    let server = Server::with(&["--max-streams-per-user", "1000"]);
    let requests = vec![streams::events("all"); FAN_OUT];
    let sockets = streams::open_all(&server.address, requests, "caught_up").await;
    let mut poster = Poster::connect(&server.address).await;
    let start = Instant::now();
    let ours = arrivals_of(sockets, length, start, async || {
        let body = format!(
            r#"{{"user_id":"all","payload":{}}}"#,
            streams::payload(start)
        );
        poster.request(&post("/v1/notifications", &body)).await;
    })
    .await;
    drop(server);

    let (address, writes) = bare_loop();
    let sockets = streams::open_all(&address, vec![streams::events("all"); FAN_OUT], "\n\n").await;
    let start = Instant::now();
    let bare = arrivals_of(sockets, length, start, async || {
        let payload = streams::payload(start);
        // As long as the event of a stream.
        let id = "bd8b91d7b315b052-1";
        let event = format!(
            "id: {id}\ndata: {{\"id\":\"{id}\",\"user_id\":\"all\",\"type\":\"notification\",\"payload\":{payload},\
             \"timestamp\":\"2026-11-27T07:49:49.270557Z\",\"read_at\":null,\"archived_at\":null,\"key\":null}}\n\n"
        );
        for thread in &writes {
            thread.send(event.clone()).unwrap();
        }
    })
    .await;
    Row::time("one event to 1,000 streams, 50 per second", &ours)
        .beside("writes of bare loops", &bare)
        .target(Target::AtMost(3.0))
        .target(Target::P99(10.0))
        .emit();
}

/// Sends at a pace, and returns how long each event took to each stream.
async fn arrivals_of(
    sockets: Vec<tokio::net::TcpStream>,
    length: Duration,
    start: Instant,
    mut send: impl AsyncFnMut(),
) -> Latencies {
    let count = usize::try_from(length.as_secs()).unwrap() * FAN_OUTS;
    let mut readers = JoinSet::new();
    for socket in sockets {
        readers.spawn(streams::arrivals(socket, count, start));
    }
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(FAN_OUTS).unwrap());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..count {
        ticks.tick().await;
        send().await;
    }
    readers.join_all().await.into_iter().flatten().collect()
}

/// Threads that write whatever they are sent to all connections, each to its share: as many as the server has.
fn bare_loop() -> (String, Vec<mpsc::Sender<String>>) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut senders = Vec::new();
    for thread in 0..threads {
        let listener = Arc::clone(&listener);
        let (sender, events) = mpsc::channel::<String>();
        senders.push(sender);
        std::thread::spawn(move || {
            let share = (thread..FAN_OUT).step_by(threads);
            let mut sockets: Vec<_> = share
                .map(|_| {
                    let (mut socket, _) = listener.accept().unwrap();
                    let _request = socket.read(&mut [0; 1024]).unwrap();
                    socket.set_nodelay(true).unwrap();
                    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n:\n\n").unwrap();
                    socket
                })
                .collect();
            for event in events {
                for socket in &mut sockets {
                    // The readers are gone at the end.
                    let _gone = socket.write_all(event.as_bytes());
                }
            }
        });
    }
    (address, senders)
}

/// 1,000 notifications per second to screens of 50 users, with and without streams of others.
pub(crate) async fn beside_others(length: Duration) {
    let others = if is_quick() { 1000 } else { 10_000 };
    let server = Server::with(&["--max-streams", "12000"]);
    let alone = at_a_pace(
        &server.address,
        &server.address,
        "alone",
        USERS,
        RATE,
        length,
    )
    .await;
    let requests = (0..others)
        .map(|n| streams::events(&format!("other{n}")))
        .collect();
    let _open = streams::open_all(&server.address, requests, "caught_up").await;
    let beside = at_a_pace(
        &server.address,
        &server.address,
        "beside",
        USERS,
        RATE,
        length,
    )
    .await;
    drop(server);

    let address = bare::start().await;
    let bare = at_a_pace(&address, &address, "bare", USERS, RATE, length).await;
    let ours = Row::time(
        &format!("accept to a screen, 1,000 per second, {others} streams of others"),
        &beside,
    );
    ours.clone()
        .beside("no streams of others", &alone)
        .target(Target::Ratio(0.8))
        .target(Target::P99(1.6))
        .emit();
    ours.beside("a bare loop with SQLite alone", &bare).emit();
}

/// Posts to one address for so many users at a pace, and returns how long it took to their screens at another.
pub(crate) async fn at_a_pace(
    address: &str,
    screens: &str,
    name: &str,
    users: usize,
    rate: usize,
    length: Duration,
) -> Latencies {
    let count = usize::try_from(length.as_secs()).unwrap() * rate / users;
    let pause = Duration::from_secs_f64(number(users) / number(rate));
    let start = Instant::now();
    let (mut readers, mut posters) = (JoinSet::new(), JoinSet::new());
    for n in 0..users {
        let user = format!("{name}{n}");
        let socket = streams::open(screens, &streams::events(&user), "caught_up").await;
        readers.spawn(streams::arrivals(socket, count, start));
        let mut poster = Poster::connect(address).await;
        posters.spawn(async move {
            // The posters do not all post at the same moment.
            let first = Instant::now() + pause.mul_f64(fastrand::f64());
            let mut ticks = tokio::time::interval_at(first, pause);
            for _ in 0..count {
                ticks.tick().await;
                let body = format!(
                    r#"{{"user_id":"{user}","payload":{}}}"#,
                    streams::payload(start)
                );
                poster.request(&post("/v1/notifications", &body)).await;
            }
        });
    }
    posters.join_all().await;
    readers.join_all().await.into_iter().flatten().collect()
}
