//! Webhooks through the server, as its users meet them; every figure beside its baseline of the same
//! run.
//!
//! `cargo bench -p tidings-server --bench webhooks [-- seconds] [part]`
//!
//! | part | measures |
//! |---|---|
//! | throughput | 64 posters for 100 users: without an endpoint, with one fast endpoint for all, with one for each user |
//! | isolation | a healthy endpoint alone, then beside 100 stalled ones with 100,000 deliveries |
//! | burst | 4,000 events to one endpoint that takes 20 ms: order and time |

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const POSTERS: usize = 64;
const USERS: usize = 100;
const STALLED: usize = 100;
const BACKLOG: usize = 1000;
const BURST: usize = 4000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(10));
    let parts = ["throughput", "isolation", "burst"];
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let is_wanted = |part| named(part) || !parts.iter().any(|part| named(part));
    if is_wanted("throughput") {
        throughput(length).await;
    }
    if is_wanted("isolation") {
        isolation(length).await;
    }
    if is_wanted("burst") {
        burst().await;
    }
}

async fn throughput(length: Duration) {
    for endpoints in [0, 1, USERS] {
        let server = Server::start();
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
    }
}

async fn isolation(length: Duration) {
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

async fn burst() {
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

fn per_second(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / time.as_secs_f64()
}

/// A server process on a database of its own, in the current directory's file system.
struct Server {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(".").unwrap();
        let database = folder.path().join("tidings.db");
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database"])
            .arg(format!("sqlite:{}", database.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        // The other lines are read too, so that the server never waits for the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = first.split("http://").nth(1).unwrap();
        let address = address.split(',').next().unwrap().to_owned();
        Self {
            process,
            address,
            _folder: folder,
        }
    }

    async fn create_endpoint(&self, owner: &str, url: &str) {
        let mut poster = Poster::connect(&self.address).await;
        let body = format!(r#"{{"url":"{url}"}}"#);
        poster.post(&format!("/v1{owner}/endpoints"), &body).await;
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = |n| {
            fields
                .split_whitespace()
                .nth(n)
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
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

/// One connection that posts one request after another.
struct Poster {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Poster {
    async fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Posts a notification of ordinary size; returns its id.
    async fn notify(&mut self, user: &str) -> String {
        let body = format!(
            r#"{{"user_id":"{user}","type":"order.paid","payload":{{"title":"An order was paid","body":"Three apples, 4.20","url":"https://shop.example/orders/17"}}}}"#
        );
        let reply = self.post("/v1/notifications", &body).await;
        let (_, id) = reply.split_once(r#"{"id":""#).unwrap();
        id.split('"').next().unwrap().to_owned()
    }

    async fn post(&mut self, path: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.write_all(request.as_bytes()).await.unwrap();
        let message = read_message(&mut self.socket, &mut self.buffer)
            .await
            .unwrap();
        let text = String::from_utf8(message).unwrap();
        assert!(text.starts_with("HTTP/1.1 20"), "{text}");
        text
    }
}

/// Reads one request or response; `None` at the end of the connection.
async fn read_message(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let length = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok())
                .unwrap_or(0);
            let end = head + 4 + length;
            if buffer.len() >= end {
                let rest = buffer.split_off(end);
                return Some(std::mem::replace(buffer, rest));
            }
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// What receivers got, and when.
#[derive(Default)]
struct Arrivals {
    received: Mutex<Vec<(String, Instant)>>,
    more: tokio::sync::Notify,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Arrivals {
    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    async fn wait_for(&self, count: usize) {
        while self.count() < count {
            let _looked_again =
                tokio::time::timeout(Duration::from_millis(5), self.more.notified()).await;
        }
    }

    /// The numbers of the events, in order of arrival.
    fn order(&self) -> Vec<usize> {
        let received = self.received.lock().unwrap();
        let seq = |(id, _): &(String, Instant)| id.rsplit_once('-').unwrap().1.parse().unwrap();
        received.iter().map(seq).collect()
    }

    /// The time from the post to the arrival, of those that are in `accepted`.
    fn latencies(&self, accepted: &HashMap<String, Instant>) -> String {
        let received = self.received.lock().unwrap();
        let mut times: Vec<_> = received
            .iter()
            .filter_map(|(id, at)| Some(at.duration_since(*accepted.get(id)?)))
            .collect();
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 1000).copied();
        match (at(500), at(990)) {
            (Some(median), Some(p99)) => format!("median {median:.1?}, p99 {p99:.1?}"),
            _ => "nothing arrived".to_owned(),
        }
    }
}

/// Starts a receiver that replies 204 after a delay; returns its URL.
async fn receive(arrivals: &Arc<Arrivals>, delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let arrivals = Arc::clone(arrivals);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&arrivals), delay));
        }
    });
    url
}

async fn serve(mut socket: TcpStream, arrivals: Arc<Arrivals>, delay: Duration) {
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut socket, &mut buffer).await {
        let text = String::from_utf8_lossy(&request).into_owned();
        let id = text.split("webhook-id: ").nth(1).unwrap();
        let id = id.lines().next().unwrap().to_owned();
        let at_once = arrivals.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        arrivals.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        arrivals.received.lock().unwrap().push((id, Instant::now()));
        arrivals.more.notify_waiters();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        arrivals.at_once.fetch_sub(1, Ordering::Relaxed);
        let response = b"HTTP/1.1 204 No Content\r\n\r\n";
        if socket.write_all(response).await.is_err() {
            return;
        }
    }
}
