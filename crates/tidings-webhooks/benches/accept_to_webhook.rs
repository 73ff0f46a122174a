//! Accept to webhook in one process: 64 posters, one fast endpoint, beside raw group commits of the
//! same database in the same run.
//!
//! `cargo bench -p tidings-webhooks --features sqlite --bench accept_to_webhook`
//!
//! Each poster appends a notification to a user's log and accepts its event, in one transaction, and
//! posts the next when that is on disk. The receiver notes when each event arrives.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_bench::{Latencies, Rate, Row};
use tidings_notify::sqlite::{SqliteOptions, SqliteStore as SqliteLogs};
use tidings_notify::{Draft, EventType, Payload, UserId};
use tidings_sqlite::Database;
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{ServiceConfig, Streams};
use tidings_webhooks::sqlite::{SqliteStore, accept_in};
use tidings_webhooks::{EndpointSettings, NewEndpoint, Options, Owner, WebhookEvent, Webhooks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const POSTERS: usize = 64;
const PAYLOAD: &str = r#"{"title":"An order was paid","body":"Three apples, 4.20","url":"https://shop.example/orders/17"}"#;

/// When events were accepted, and how long they took to arrive.
#[derive(Default)]
struct Times {
    accepted: Mutex<HashMap<String, Instant>>,
    latencies: Mutex<Vec<Duration>>,
    arrived: AtomicUsize,
}

#[tokio::main]
async fn main() {
    let length = tidings_bench::length();
    let folder = tempfile::tempdir_in(".").unwrap();
    let raw = commits(&folder.path().join("raw.db"), length).await;

    let times = Arc::<Times>::default();
    let url = receive(Arc::clone(&times)).await;
    let options = tidings_sqlite::Options::default();
    let database = Database::open(folder.path().join("app.db"), &options).unwrap();
    let _log = SqliteLogs::open(database.clone(), SqliteOptions::default())
        .await
        .unwrap();
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let store = Arc::new(SqliteStore::open(database.clone()).await.unwrap());
    let webhooks = Webhooks::start(store, streams, Options::default())
        .await
        .unwrap();
    let new = NewEndpoint::new(Owner::Operator, EndpointSettings::new(url));
    webhooks.create_endpoint(new).await.unwrap();

    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let mut posters = tokio::task::JoinSet::new();
    for poster in 0..POSTERS {
        let (database, webhooks) = (database.clone(), webhooks.clone());
        let (times, stop) = (Arc::clone(&times), Arc::clone(&stop));
        posters.spawn(async move {
            let user = UserId::new(format!("user-{poster}")).unwrap();
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                accept(&database, &webhooks, &user, &times).await;
                count += 1;
            }
            count
        });
    }
    let mut behind = Vec::new();
    for part in 1..=2 {
        tokio::time::sleep_until(began + length / 2 * part).await;
        behind.push(times.accepted.lock().unwrap().len());
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = 0;
    while let Some(count) = posters.join_next().await {
        accepted += count.unwrap();
    }
    while times.arrived.load(Ordering::Relaxed) < accepted {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let latencies = times.latencies.lock().unwrap().iter().copied().collect();
    let rate = Rate::new(accepted, began.elapsed(), &latencies);
    Row::rate(
        "accept to webhook in one process, 64 posters, one endpoint",
        "webhooks/s",
        rate,
    )
    .beside("group commit of one row each", raw)
    .note(format!(
        "{} under way after half of the time, {} at the end",
        behind[0], behind[1]
    ))
    .emit();
    webhooks.stop_within(Duration::from_secs(10)).await;
    database.close().await;
}

/// What the disk and the writer can do: one row a call, each waiting for its commit.
async fn commits(path: &std::path::Path, length: Duration) -> Rate {
    let database = Database::open(path, &tidings_sqlite::Options::default()).unwrap();
    let table = "CREATE TABLE row (n INTEGER PRIMARY KEY, payload TEXT NOT NULL)";
    database
        .migrate("bench", Box::leak(Box::new([table])))
        .await
        .unwrap();
    let end = Instant::now() + length;
    let mut posters = tokio::task::JoinSet::new();
    for _ in 0..POSTERS {
        let database = database.clone();
        posters.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let began = Instant::now();
                if began >= end {
                    return latencies;
                }
                let insert = "INSERT INTO row (payload) VALUES (?1)";
                let written = database.write(move |tx| {
                    tx.prepare_cached(insert)?.execute([PAYLOAD])?;
                    Ok::<_, tidings_sqlite::Error>(())
                });
                written.await.unwrap();
                latencies.add(began.elapsed());
            }
        });
    }
    let latencies: Latencies = posters.join_all().await.into_iter().flatten().collect();
    database.close().await;
    Rate::new(latencies.count(), length, &latencies)
}

async fn accept(database: &Database, webhooks: &Webhooks, user: &UserId, times: &Times) {
    let event_type = EventType::new("order.paid").unwrap();
    let draft = Draft::new(user.clone(), event_type, Payload::parse(PAYLOAD).unwrap());
    let stream = webhooks.stream().clone();
    let began = Instant::now();
    let ids = database.write(move |tx| {
        let events = tidings_notify::sqlite::append_in(tx, &[draft])?;
        let events: Vec<_> = events.iter().map(WebhookEvent::from).collect();
        accept_in(tx, &stream, &events).unwrap();
        let id = |event: &WebhookEvent| event.id().to_owned();
        Ok::<_, tidings_notify::StoreError>(events.iter().map(id).collect::<Vec<_>>())
    });
    let ids = ids.await.unwrap();
    webhooks.wake();
    let mut accepted = times.accepted.lock().unwrap();
    for id in ids {
        accepted.insert(id, began);
    }
}

/// A receiver that does as little as it can.
async fn receive(times: Arc<Times>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(socket, Arc::clone(&times)));
        }
    });
    url
}

async fn serve(mut socket: TcpStream, times: Arc<Times>) -> Result<Infallible, std::io::Error> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let (head, length, id) = loop {
            if let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
                let field = |name: &str| {
                    let line = text.lines().find(|line| line.starts_with(name));
                    line.and_then(|line| line.split_once(": "))
                        .unwrap()
                        .1
                        .to_owned()
                };
                break (
                    head,
                    field("content-length").parse().unwrap(),
                    field("webhook-id"),
                );
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let length: usize = length;
        while buffer.len() < head + 4 + length {
            socket.read_buf(&mut buffer).await?;
        }
        buffer.drain(..head + 4 + length);
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        arrive(&times, id).await;
    }
}

async fn arrive(times: &Times, id: String) {
    // An event may arrive before its poster learns of the commit.
    let accepted = loop {
        let accepted = times.accepted.lock().unwrap().remove(&id);
        match accepted {
            Some(accepted) => break accepted,
            None => tokio::task::yield_now().await,
        }
    };
    times.latencies.lock().unwrap().push(accepted.elapsed());
    times.arrived.fetch_add(1, Ordering::Relaxed);
}
