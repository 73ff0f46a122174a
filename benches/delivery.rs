//! Deliveries per second and CPU per delivery beside bare loops over HTTP libraries, in Rust and Go.
//!
//! `cargo bench --bench delivery`, or with other numbers of sending threads and of requests at a
//! time: `cargo bench --bench delivery -- threads=2 32 256`
//!
//! Each contender posts the same signed body from one thread to a server in another, over kept
//! connections, with 1, 10 and 64 requests at a time. They take turns for some rounds, so that
//! whatever else the machine does affects all of them, and the best round of each counts. Every
//! contender signs: what is compared is the rest.
//!
//! The contender in Go is `delivery.go`, a process of its own, built if there is a Go compiler. The
//! time that the sending threads were really running says more than the clock on a machine that is
//! not idle; it is known only on Linux.
//!
//! Microseconds of processor time for each delivery, medians of nine rounds in turn, with one sending thread
//! on two cores that had other work, and the server in a process of its own (Linux, 256 bytes):
//!
//! | requests at a time | bare hyper | `Sender` | `channel, hyper` | `Client` |
//! |---|---|---|---|---|
//! | 10 | 9.5 | 9.1 | 9.6 | 10.0 |
//! | 64 | 10.6 | 9.6 | 11.0 | 10.6 |
//!
//! An attempt of `Sender` drives its own connection, which saves more than what its phases, times and bounds
//! cost. The queue of `Client` costs 5,100 instructions for each delivery: 1,050 to accept it, 1,350 to take
//! it, 1,950 to settle it, and the rest for permits and for polls through the worker. That of
//! `channel, hyper`, which has no order, no limits and no shutdown, costs 950.
//!
//! `Client, filled` drains a queue that was filled before the clock starts, which shows what accepting costs.
//!
//! All make the same system calls, one to write and one to read for each delivery, and wait as often: the
//! rest is work in the program, much of it copies. A second thread hides it.
//!
//! Sending and receiving share two cores here, so that waking the receiver costs the sender more than
//! anything else: requests that left one by one, and not together, had 0.7 of the rate.

#![allow(clippy::print_stdout, reason = "a benchmark that talks to a person")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use tidings::signing::{Secret, StandardSigner};
use tidings::{Client, DEFAULT_QUEUE_SIZE, Endpoint, Message, Sender, Verdict};
use tidings_bench::{Latencies, Rate, Row, Target, is_quick};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Rounds of each contender; two in a short run.
const ROUNDS: u32 = 5;

/// The name of the server's thread.
const SERVER: &str = "server";

/// How long a contender runs in a round.
const ROUND: Duration = Duration::from_millis(700);

/// The aims with several workers: a multiple of Go's rate, and a share of that of bare hyper.
const AIM_OF_GO: f64 = 1.3;
const AIM_OF_HYPER: f64 = 0.95;

const CONTENDERS: [&str; 7] = [
    "bare reqwest",
    "bare hyper",
    "Sender",
    "channel, hyper",
    "Client",
    "Client, filled",
    "Go net/http",
];

const REQWEST: usize = 0;
const HYPER: usize = 1;
/// The loops of bare hyper, fed by a bounded channel and with an outcome for each message: the least that a queue costs.
const CHANNEL: usize = 3;
const CLIENT: usize = 4;
/// The client with a queue that was filled before the clock starts.
const FILLED: usize = 5;
const GO: usize = 6;

/// How many messages the queue is filled with.
const MESSAGES: u32 = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = (arguments.iter())
        .find_map(|argument| argument.strip_prefix("threads=")?.parse().ok())
        .unwrap_or(1);
    let chosen: Vec<usize> = (arguments.iter())
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let address = serve();
    let runtime = runtime(threads);
    let setup = Arc::new(Setup::new(address, Bytes::from(vec![b'x'; 256])));
    let go = build_go();
    println!("{threads} sending threads");
    println!("workers  contender      deliveries/s  of hyper  of Go  CPU us/delivery");
    let all = if chosen.is_empty() {
        vec![1, 10, 64]
    } else {
        chosen
    };
    let rounds = if is_quick() { 2 } else { ROUNDS };
    for workers in all {
        let mut best = [Cost::WORST; CONTENDERS.len()];
        for _ in 0..rounds {
            for (contender, best) in best.iter_mut().enumerate() {
                let cost = match (contender, &go) {
                    (GO, Some(program)) => run_go(program, &setup.url, workers, threads),
                    (GO, None) => continue,
                    // With several threads the workers send while the queue is filled.
                    (FILLED, _) if threads > 1 => continue,
                    _ => {
                        let round = run(Arc::clone(&setup), contender, workers);
                        // In a task, so that it runs where the requests are made.
                        let round = runtime.spawn(round);
                        runtime.block_on(round).expect("no round panics")
                    }
                };
                *best = best.better_of(cost);
            }
        }
        for (contender, (name, cost)) in CONTENDERS.iter().zip(best).enumerate() {
            if contender == GO && go.is_none() {
                println!("{workers:>7}  {name:<13} (no Go compiler was found)");
                continue;
            }
            if cost.wall.is_infinite() {
                continue;
            }
            let of_hyper = best[HYPER].wall / cost.wall;
            let of_go = best[GO].wall / cost.wall;
            println!(
                "{workers:>7}  {name:<13} {:>13.0} {of_hyper:>9.2} {of_go:>6.2} {:>16.1}",
                1.0 / cost.wall,
                cost.cpu * 1e6,
            );
        }
        let wrk = run_wrk(&setup, workers);
        let latencies = runtime.spawn(latencies(Arc::clone(&setup), workers));
        let latencies = runtime.block_on(latencies).expect("no round panics");
        emit(workers, &best, go.is_some(), &wrk, &latencies);
    }
    if let Some(program) = go
        && let Err(error) = std::fs::remove_file(&program)
    {
        println!("{} is left: {error}", program.display());
    }
}

/// Puts `Client` beside each of the others.
fn emit(
    workers: usize,
    best: &[Cost; CONTENDERS.len()],
    has_go: bool,
    wrk: &Result<Rate, String>,
    latencies: &Latencies,
) {
    let name = format!("deliveries, 256 bytes, {workers} at a time");
    let rate = Rate {
        per_second: 1.0 / best[CLIENT].wall,
        p99: latencies.p99(),
    };
    let row = || Row::rate(&name, "deliveries/s", rate);
    // A single request at a time is not aimed at.
    let aim = |row: Row, least| {
        if workers > 1 {
            row.target(Target::Ratio(least))
        } else {
            row
        }
    };
    aim(row(), AIM_OF_HYPER)
        .beside("bare hyper", best[HYPER].rate())
        .emit();
    row()
        .beside("bare hyper behind a channel", best[CHANNEL].rate())
        .emit();
    row().beside("bare reqwest", best[REQWEST].rate()).emit();
    let go = if has_go {
        row().beside("Go net/http", best[GO].rate())
    } else {
        row().beside_nothing("Go net/http", "not installed")
    };
    aim(go, AIM_OF_GO).emit();
    let wrk = wrk.as_ref().map_err(String::as_str);
    row()
        .beside_if("wrk, which signs nothing", wrk.copied())
        .emit();
    for contender in [REQWEST, GO] {
        if contender != GO || has_go {
            let name = format!("processor time of a delivery, {workers} at a time");
            Row::cost(&name, "µs", best[CLIENT].cpu * 1e6)
                .beside(CONTENDERS[contender], best[contender].cpu * 1e6)
                .target(Target::Ratio(1.0))
                .emit();
        }
    }
}

/// Posts the same body by `wrk`, unsigned, for one round.
fn run_wrk(setup: &Setup, workers: usize) -> Result<Rate, String> {
    let script = std::env::temp_dir().join(format!("tidings-delivery-{}.lua", std::process::id()));
    let body = "x".repeat(setup.body.len());
    let text = format!(
        "wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['content-type'] = 'application/json'\n"
    );
    std::fs::write(&script, text).map_err(|error| error.to_string())?;
    let output = Command::new("wrk")
        .args(["--latency", "-t1", "-d1s", "-c", &workers.to_string(), "-s"])
        .arg(&script)
        .arg(&setup.url)
        .output();
    let removed = std::fs::remove_file(&script);
    let output = output.map_err(|_| "not installed".to_owned())?;
    removed.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let word = |name| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.trim().strip_prefix(name))
            .map(str::trim)
    };
    let per_second = word("Requests/sec:").and_then(|rate| rate.parse().ok());
    let p99 = word("99%").and_then(seconds);
    let (Some(per_second), Some(p99)) = (per_second, p99) else {
        return Err(format!("it has printed: {text}"));
    };
    Ok(Rate { per_second, p99 })
}

/// A time as `wrk` writes it: `1.20ms`.
fn seconds(text: &str) -> Option<Duration> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let number: f64 = number.parse().ok()?;
    Some(Duration::from_secs_f64(number * unit))
}

/// How long the requests of `Client` take, in a round of its own, because noting each costs time.
async fn latencies(setup: Arc<Setup>, workers: usize) -> Latencies {
    let latencies = Arc::new(Mutex::new(Latencies::default()));
    let noted = Arc::clone(&latencies);
    let client = Client::builder(&setup.url)
        .secret(setup.secret.clone())
        .sender(setup.sender.clone())
        .workers(workers)
        .on_error(|error| panic!("{error}"))
        .on_delivered(move |delivered| {
            let mut noted = noted.lock().expect("nothing panics with it");
            noted.extend(delivered.attempts.iter().map(|attempt| attempt.elapsed));
        })
        .build()
        .expect("these settings fit");
    client.start();
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let message = Message::new(setup.body.clone());
        client.enqueue(message).await.expect("it is not stopped");
    }
    client.stop().await;
    let latencies = latencies.lock().expect("nothing panics with it");
    latencies.clone()
}

/// Builds the contender in Go; `None` without a compiler.
fn build_go() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/delivery.go");
    let program = std::env::temp_dir().join(format!("tidings-delivery-{}", std::process::id()));
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    built
        .is_ok_and(|status| status.success())
        .then_some(program)
}

fn run_go(program: &Path, url: &str, workers: usize, threads: usize) -> Cost {
    let output = Command::new(program)
        .arg(url)
        .arg(workers.to_string())
        .arg(ROUND.as_millis().to_string())
        .arg(threads.to_string())
        .output()
        .expect("it was built");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || {
        let number = numbers.next().and_then(Result::ok);
        number.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (count, wall, cpu, p99) = (next(), next(), next(), next());
    Cost {
        wall: wall / count,
        cpu: cpu / count,
        p99,
    }
}

/// Seconds for one delivery.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    /// Of the sending threads; not a number where it is not known.
    cpu: f64,
    /// What one request in a hundred exceeds.
    p99: f64,
}

impl Cost {
    const WORST: Self = Self {
        wall: f64::INFINITY,
        cpu: f64::INFINITY,
        p99: f64::INFINITY,
    };

    fn better_of(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
            p99: self.p99.min(other.p99),
        }
    }

    fn rate(self) -> Rate {
        Rate {
            per_second: 1.0 / self.wall,
            p99: Duration::from_secs_f64(self.p99),
        }
    }
}

/// For how many seconds all threads but the server's have been running.
fn cpu_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return f64::NAN;
    };
    let nanoseconds = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let running = times.split(' ').next()?.parse::<f64>().ok()?;
        (name.trim() != SERVER).then_some(running)
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// Replies `ok` to every request, in a thread of its own, for as long as the program runs.
fn serve() -> SocketAddr {
    let runtime = runtime(1);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = std::thread::Builder::new().name(SERVER.to_owned());
    let serving = server.spawn(move || {
        runtime.block_on(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let service = service_fn(|request: Request<hyper::body::Incoming>| async {
                    let _body = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.pipeline_flush(true);
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    serving.expect("a thread can be made");
    address
}

/// What the contenders share, made once so that connections are kept.
struct Setup {
    url: String,
    body: Bytes,
    secret: Secret,
    signer: StandardSigner,
    reqwest: reqwest::Client,
    hyper: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    sender: Sender,
    endpoint: Endpoint,
}

impl Setup {
    fn new(address: SocketAddr, body: Bytes) -> Self {
        let url = format!("http://{address}/hooks");
        let secret = Secret::generate();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            signer: StandardSigner::new([secret.clone()]).expect("there is a secret"),
            reqwest: reqwest::Client::builder()
                .timeout(Duration::from_secs(30))
                .build()
                .expect("it needs nothing"),
            hyper: hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .build(connector),
            sender: Sender::builder().build().expect("it needs nothing"),
            endpoint: Endpoint::builder(&url)
                .secret(secret.clone())
                .build()
                .expect("the URL is one"),
            url,
            body,
            secret,
        }
    }

    fn signed(&self, message: &Message) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let content_type = http::HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, content_type);
        let now = Timestamp::now();
        self.signer
            .sign(message.id(), now, message.body(), &mut headers);
        headers
    }

    async fn post_by_reqwest(&self) {
        let message = Message::new(self.body.clone());
        let request = self.reqwest.post(&self.url).headers(self.signed(&message));
        let response = request.body(message.body().clone()).send().await;
        let response = response.expect("the server replies");
        assert!(response.status().is_success());
        response.bytes().await.expect("the server replies in full");
    }

    async fn post_by_hyper(&self, message: Message) {
        let mut request = Request::post(&self.url)
            .body(Full::new(message.body().clone()))
            .expect("the URL is one");
        request.headers_mut().extend(self.signed(&message));
        let response = self.hyper.request(request).await;
        let response = response.expect("the server replies");
        assert!(response.status().is_success());
        response
            .into_body()
            .collect()
            .await
            .expect("the server replies in full");
    }

    async fn post_by_sender(&self) {
        let message = Message::new(self.body.clone());
        let attempt = self.sender.attempt(&self.endpoint, &message, 1).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
    }
}

/// Runs one contender for one round.
async fn run(setup: Arc<Setup>, contender: usize, workers: usize) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let end = start + ROUND;
    let (posted, p99) = match contender {
        // The rounds of `latencies` say how long its requests take.
        CLIENT => (through_client(&setup, workers, end).await, f64::INFINITY),
        FILLED => return through_filled_queue(&setup, workers).await,
        _ => {
            let latencies = match contender {
                CHANNEL => through_channel(&setup, workers, end).await,
                _ => in_loops(&setup, contender, workers, end).await,
            };
            let posted = u32::try_from(latencies.count()).expect("a round is short");
            (posted, latencies.p99().as_secs_f64())
        }
    };
    Cost {
        wall: start.elapsed().as_secs_f64() / f64::from(posted),
        cpu: (cpu_seconds() - cpu) / f64::from(posted),
        p99,
    }
}

/// Posts in so many loops at a time, each a task.
async fn in_loops(setup: &Arc<Setup>, contender: usize, workers: usize, end: Instant) -> Latencies {
    let mut loops = JoinSet::new();
    for _ in 0..workers {
        let setup = Arc::clone(setup);
        loops.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let began = Instant::now();
                if began >= end {
                    return latencies;
                }
                match contender {
                    REQWEST => setup.post_by_reqwest().await,
                    HYPER => setup.post_by_hyper(Message::new(setup.body.clone())).await,
                    _ => setup.post_by_sender().await,
                }
                latencies.add(began.elapsed());
            }
        });
    }
    loops.join_all().await.into_iter().flatten().collect()
}

/// Keeps a bounded channel full, from which so many loops take.
async fn through_channel(setup: &Arc<Setup>, workers: usize, end: Instant) -> Latencies {
    type Posting = (Message, oneshot::Sender<()>);
    let (queue, taken) = mpsc::channel::<Posting>(DEFAULT_QUEUE_SIZE);
    let taken = Arc::new(tokio::sync::Mutex::new(taken));
    let mut loops = JoinSet::new();
    for _ in 0..workers {
        let (setup, taken) = (Arc::clone(setup), Arc::clone(&taken));
        loops.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let next = taken.lock().await.recv().await;
                let Some((message, outcome)) = next else {
                    return latencies;
                };
                let began = Instant::now();
                setup.post_by_hyper(message).await;
                latencies.add(began.elapsed());
                outcome.send(()).expect("the outcome is waited for");
            }
        });
    }
    let mut outcomes = VecDeque::new();
    while Instant::now() < end {
        let (outcome, waits) = oneshot::channel();
        let message = Message::new(setup.body.clone());
        let sent = queue.send((message, outcome)).await;
        sent.expect("the loops end after this");
        outcomes.push_back(waits);
        // The channel bounds them.
        while (outcomes.front_mut()).is_some_and(|outcome| outcome.try_recv().is_ok()) {
            outcomes.pop_front();
        }
    }
    drop(queue);
    loops.join_all().await.into_iter().flatten().collect()
}

fn client(setup: &Setup, workers: usize, queue_size: usize) -> Client {
    let client = Client::builder(&setup.url)
        .secret(setup.secret.clone())
        .sender(setup.sender.clone())
        .workers(workers)
        .queue_size(queue_size)
        .on_error(|error| panic!("{error}"))
        .build()
        .expect("these settings fit");
    client.start();
    client
}

/// Drains a queue that was filled before: what `Client` costs without the task that fills it.
async fn through_filled_queue(setup: &Setup, workers: usize) -> Cost {
    let client = client(setup, workers, MESSAGES as usize);
    // On the only thread, so that no worker runs yet.
    for _ in 0..MESSAGES {
        let message = Message::new(setup.body.clone());
        client.notify(message).expect("there is a place");
    }
    let (start, cpu) = (Instant::now(), cpu_seconds());
    client.stop().await;
    Cost {
        wall: start.elapsed().as_secs_f64() / f64::from(MESSAGES),
        cpu: (cpu_seconds() - cpu) / f64::from(MESSAGES),
        p99: f64::INFINITY,
    }
}

/// Keeps the queue of a client full.
async fn through_client(setup: &Setup, workers: usize, end: Instant) -> u32 {
    let client = client(setup, workers, DEFAULT_QUEUE_SIZE);
    let mut queued = 0;
    while Instant::now() < end {
        let message = Message::new(setup.body.clone());
        client.enqueue(message).await.expect("it is not stopped");
        queued += 1;
    }
    client.stop().await;
    queued
}
