//! What a message costs while it waits, measured at the allocator. It has a program of its own,
//! because nothing else may allocate in the meantime.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the figures are of interest")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidings::retry::{RetryPolicy, Schedule};
use tidings::{Dispatcher, Endpoint, LaneConfig, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 10_000;
/// How many messages are tried before they wait. After the first ones, their queue has just doubled.
const TRIED: usize = 500;
const BODY: usize = 100;

/// One test: two at once would count what the other allocates.
#[tokio::test]
async fn a_message_that_waits_takes_less_than_256_bytes_beside_its_body() {
    let usual = Names { id: 36, kind: 17 };
    queued(usual).await;
    waiting_for_a_retry(1, usual).await;
    waiting_for_a_retry(10, usual).await;
    let longest = Names { id: 255, kind: 255 };
    queued(longest).await;
    waiting_for_a_retry(20, longest).await;
}

/// How long the id and the type are.
#[derive(Debug, Clone, Copy)]
struct Names {
    id: usize,
    kind: usize,
}

impl Names {
    /// A message with an id and a type of its own.
    fn message(self) -> Message {
        let body: Bytes = vec![0; BODY].into();
        Message::new(body)
            .with_type("t".repeat(self.kind))
            .with_id("i".repeat(self.id))
            .unwrap()
    }

    /// What may be taken besides the 256 bytes.
    fn extra(self) -> usize {
        let bytes = self.id + self.kind;
        if bytes > 53 { bytes } else { 0 }
    }

    #[track_caller]
    fn assert_small(self, region: &Region<'_, System>, messages: usize, what: &str) {
        let change = region.change();
        let bytes = change.bytes_allocated - change.bytes_deallocated;
        let each = bytes / messages - BODY - self.extra();
        println!("{what} with {self:?} takes {each} bytes");
        assert!(each < 256, "{what} with {self:?} takes {each} bytes");
    }
}

async fn queued(names: Names) {
    let lane = LaneConfig::default().with_queue_size(MESSAGES);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.insert("a", Endpoint::new("http://127.0.0.1:9/").unwrap());
    dispatcher.start();
    dispatcher.open_circuit("a");

    let region = Region::new(ALLOCATOR);
    for _ in 0..MESSAGES {
        dispatcher.notify("a", names.message()).unwrap();
    }
    assert_eq!(dispatcher.queued(), MESSAGES);
    names.assert_small(&region, MESSAGES, "a queued message");
    dispatcher.stop_within(Duration::ZERO).await;
}

/// Measures messages that wait after so many attempts.
async fn waiting_for_a_retry(attempts: usize, names: Names) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(refuse_all(listener, Arc::clone(&requests)));
    let mut waits = vec![Duration::from_millis(1); attempts - 1];
    waits.push(Duration::from_secs(3600));
    let lane = LaneConfig::default()
        .with_queue_size(MESSAGES)
        .with_in_flight(1, 1)
        .with_retry(RetryPolicy::new(Schedule::new(waits).unwrap()))
        .without_retry_budget()
        .without_circuit_breaker();
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.insert("a", Endpoint::new(url).unwrap());
    dispatcher.start();
    let all_wait = async |messages: usize| {
        while dispatcher.queued() < messages {
            dispatcher.notify("a", names.message()).unwrap();
        }
        let all = messages * attempts;
        while requests.load(Ordering::SeqCst) < all || dispatcher.queued() < messages {
            tokio::task::yield_now().await;
        }
    };
    // Connections and buffers are there before the measurement.
    all_wait(100).await;
    let region = Region::new(ALLOCATOR);
    all_wait(100 + TRIED).await;
    let what = format!("a message after {attempts} attempts");
    names.assert_small(&region, TRIED, &what);
    dispatcher.stop_within(Duration::ZERO).await;
}

/// Replies 503 with 16 KiB to every request, which nothing should keep while a message waits.
async fn refuse_all(listener: TcpListener, requests: Arc<AtomicUsize>) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        tokio::spawn(refuse(connection, Arc::clone(&requests)));
    }
}

async fn refuse(mut connection: TcpStream, requests: Arc<AtomicUsize>) {
    const HEAD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 16384\r\n\r\n";
    let mut response = HEAD.to_vec();
    response.resize(HEAD.len() + 16 * 1024, b'x');
    let mut request = Vec::with_capacity(4096);
    while connection.read_buf(&mut request).await.unwrap() > 0 {
        let head = request.windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| request.len() >= head + 4 + BODY) {
            request.clear();
            requests.fetch_add(1, Ordering::SeqCst);
            connection.write_all(&response).await.unwrap();
        }
    }
}
