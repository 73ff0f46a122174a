//! Deliveries per second beside bare loops over the HTTP libraries beneath.
//!
//! `cargo bench --bench delivery`
//!
//! Each contender posts the same signed body from one thread to a server in another, over kept
//! connections, with 1, 10 and 64 requests at a time. They take turns for some rounds, so that
//! whatever else the machine does hits all of them, and the best round of each counts. Everybody
//! signs: what is compared is the rest.
//!
//! The time that the sending thread was really running tells more than the clock on a machine that
//! is not idle; it is known on Linux alone.

#![allow(clippy::print_stdout, reason = "a benchmark that talks to a person")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use tidings::signing::{Secret, StandardSigner};
use tidings::{Client, Endpoint, Message, Sender, Verdict};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::Instant;

const ROUNDS: u32 = 8;

/// How long a contender runs in a round.
const ROUND: Duration = Duration::from_millis(700);

/// The share of a bare loop on reqwest that is the aim with several workers.
const AIM: f64 = 0.9;

const CONTENDERS: [&str; 4] = ["bare reqwest", "bare hyper", "Sender", "Client"];

fn main() {
    let address = serve();
    let runtime = runtime();
    let setup = Arc::new(Setup::new(address, Bytes::from(vec![b'x'; 256])));
    println!("workers  contender      deliveries/s  of reqwest  CPU us/delivery  of reqwest");
    for workers in [10] {
        let mut best = [Cost::WORST; 4];
        for _ in 0..ROUNDS {
            for (contender, best) in best.iter_mut().enumerate().skip(3) {
                let cost = runtime.block_on(run(&setup, contender, workers));
                *best = best.better_of(cost);
            }
        }
        for (name, cost) in CONTENDERS.iter().zip(best) {
            let (rate, cpu) = (best[0].wall / cost.wall, best[0].cpu / cost.cpu);
            let missed = workers > 1 && rate.max(cpu) < AIM;
            println!(
                "{workers:>7}  {name:<13} {:>13.0} {rate:>11.2} {:>16.1} {cpu:>11.2}{}",
                1.0 / cost.wall,
                cost.cpu * 1e6,
                if missed { "  below the aim" } else { "" },
            );
        }
    }
}

/// Seconds for one delivery.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    /// Of the sending thread; not a number where it is not known.
    cpu: f64,
}

impl Cost {
    const WORST: Self = Self {
        wall: f64::INFINITY,
        cpu: f64::INFINITY,
    };

    fn better_of(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
        }
    }
}

/// For how many seconds the calling thread has been running.
fn cpu_seconds() -> f64 {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanoseconds = read
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or(f64::NAN, |nanoseconds| nanoseconds / 1e9)
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// Answers every request with `ok`, in a thread of its own, for as long as the program runs.
fn serve() -> SocketAddr {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
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
        let response = response.expect("the server answers");
        assert!(response.status().is_success());
        response.bytes().await.expect("the server answers in full");
    }

    async fn post_by_hyper(&self) {
        let message = Message::new(self.body.clone());
        let mut request = Request::post(&self.url)
            .body(Full::new(message.body().clone()))
            .expect("the URL is one");
        request.headers_mut().extend(self.signed(&message));
        let response = self.hyper.request(request).await;
        let response = response.expect("the server answers");
        assert!(response.status().is_success());
        response
            .into_body()
            .collect()
            .await
            .expect("the server answers in full");
    }

    async fn post_by_sender(&self) {
        let message = Message::new(self.body.clone());
        let attempt = self.sender.attempt(&self.endpoint, &message, 1).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered);
    }
}

/// Runs one contender for one round, all of it in the calling thread.
async fn run(setup: &Arc<Setup>, contender: usize, workers: usize) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let end = start + ROUND;
    let posted = match contender {
        3 => through_client(setup, workers, end).await,
        _ => in_loops(setup, contender, workers, end).await,
    };
    Cost {
        wall: start.elapsed().as_secs_f64() / f64::from(posted),
        cpu: (cpu_seconds() - cpu) / f64::from(posted),
    }
}

/// Posts in so many loops at a time, each a task, and counts.
async fn in_loops(setup: &Arc<Setup>, contender: usize, workers: usize, end: Instant) -> u32 {
    let mut loops = JoinSet::new();
    for _ in 0..workers {
        let setup = Arc::clone(setup);
        loops.spawn(async move {
            let mut posted = 0;
            while Instant::now() < end {
                match contender {
                    0 => setup.post_by_reqwest().await,
                    1 => setup.post_by_hyper().await,
                    _ => setup.post_by_sender().await,
                }
                posted += 1;
            }
            posted
        });
    }
    loops.join_all().await.into_iter().sum()
}

/// Keeps the queue of a client full.
async fn through_client(setup: &Setup, workers: usize, end: Instant) -> u32 {
    let client = Client::builder(&setup.url)
        .secret(setup.secret.clone())
        .workers(workers)
        .on_error(|_, error| panic!("{error}"))
        .build()
        .expect("these settings fit");
    client.start();
    let mut queued = 0;
    while Instant::now() < end {
        let message = Message::new(setup.body.clone());
        client.enqueue(message).await.expect("it is not stopped");
        queued += 1;
    }
    client.stop().await;
    queued
}
