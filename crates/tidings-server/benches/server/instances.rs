//! Servers on PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_postgres::{Client, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::arrivals::Arrivals;
use crate::server::{Poster, Server};
use crate::{per_second, webhooks};

/// Rows that share a commit: what 64 posters can have waiting at the same time.
const BATCH: i32 = 64;

/// Notifications a second, one for each user in turn.
const RATE: f64 = 500.0;
const USERS: usize = 50;

const STREAMS: usize = 1000;

/// The least that an accepted notification is: a row with its text, found by user and number.
const TABLE: &str = "
    DROP TABLE IF EXISTS tidings_bench;
    CREATE TABLE tidings_bench (
        user_id text COLLATE \"C\", seq bigint, type text, payload text, at bigint,
        PRIMARY KEY (user_id, seq)
    )";

const INSERT: &str = "
    INSERT INTO tidings_bench
    SELECT 'user' || n % 100, $1::bigint * 1000 + n, 'order.paid', $2::text, 0
    FROM generate_series(1, $3::integer) AS n";

fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL database")
}

async fn database() -> Client {
    Config::new(&url()).unwrap().connect().await.unwrap()
}

/// Accepting on PostgreSQL, beside the inserts alone.
pub(crate) async fn beside_the_database_alone(length: Duration) {
    let raw = inserts(length).await;
    println!("postgres, inserts alone, {BATCH} a commit: {raw:.0} rows/s");
    for endpoints in [0, 1] {
        let accepted = webhooks::accept(&Server::on(&url()), endpoints, length).await;
        println!(
            "postgres, {endpoints} endpoints: {:.2} of the inserts",
            accepted / raw
        );
    }
}

/// Commits batch after batch over one connection, and returns the rows a second.
async fn inserts(length: Duration) -> f64 {
    let client = database().await;
    client.batch_execute(TABLE).await.unwrap();
    let insert = client.prepare(INSERT).await.unwrap();
    let payload = "x".repeat(100);
    let started = Instant::now();
    let mut rows = 0_usize;
    let mut batch = 0_i64;
    while started.elapsed() < length {
        let inserted = client.execute(&insert, &[&batch, &payload, &BATCH]).await;
        rows += usize::try_from(inserted.unwrap()).unwrap();
        batch += 1;
    }
    let rate = per_second(rows, started.elapsed());
    client
        .batch_execute("DROP TABLE tidings_bench")
        .await
        .unwrap();
    rate
}

/// The time from a post to one instance until the event is on the screen of another.
pub(crate) async fn to_the_screens_of_another(length: Duration) {
    let (first, second) = (Server::on(&url()), Server::on(&url()));
    let arrivals = Arc::<Arrivals>::default();
    for n in 0..USERS {
        let screen = stream(&second, &format!("screen{n}")).await;
        tokio::spawn(read(screen, Arc::clone(&arrivals)));
    }
    let posters = (0..USERS).map(|n| {
        let address = first.address.clone();
        tokio::spawn(async move { post_at_a_pace(&address, n, length).await })
    });
    let mut accepted = HashMap::new();
    for poster in posters.collect::<Vec<_>>() {
        accepted.extend(poster.await.unwrap());
    }
    arrivals.wait_for(accepted.len()).await;
    println!(
        "instances, {RATE:.0} a second to the screens of another: {}",
        arrivals.latencies(&accepted)
    );
}

async fn post_at_a_pace(address: &str, n: usize, length: Duration) -> HashMap<String, Instant> {
    let mut poster = Poster::connect(address).await;
    let user = format!("screen{n}");
    let pause = Duration::from_secs_f64(per_second(USERS, Duration::from_secs(1)) / RATE);
    // The posters do not all post at the same moment.
    tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
    let mut ticks = tokio::time::interval(pause);
    let (started, mut accepted) = (Instant::now(), HashMap::new());
    while started.elapsed() < length {
        ticks.tick().await;
        let start = Instant::now();
        accepted.insert(poster.notify(&user).await, start);
    }
    accepted
}

/// Opens the event stream of a user, and waits until it has caught up.
async fn stream(server: &Server, user: &str) -> TcpStream {
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let request = format!("GET /v1/users/{user}/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("tidings.caught_up") {
        assert_ne!(
            socket.read_buf(&mut text).await.unwrap(),
            0,
            "the stream ended"
        );
    }
    socket
}

/// Notes the ids of the events of a stream.
async fn read(mut socket: TcpStream, arrivals: Arc<Arrivals>) {
    let mut text = Vec::new();
    while socket.read_buf(&mut text).await.is_ok_and(|read| read > 0) {
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if let Some(id) = line.strip_prefix(b"id: ") {
                arrivals.note(String::from_utf8_lossy(id).trim_end().to_owned());
            }
        }
    }
}

/// How many transactions a second the database makes for a server with idle streams, and for one without.
pub(crate) async fn idle(length: Duration) {
    let client = database().await;
    let server = Server::on(&url());
    for streams in [0, STREAMS] {
        let mut open = Vec::new();
        for n in 0..streams {
            open.push(stream(&server, &format!("idle{n}")).await);
        }
        // What opening them has caused is over.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = transactions(&client).await;
        tokio::time::sleep(length).await;
        let made = transactions(&client).await - before;
        let rate = per_second(usize::try_from(made).unwrap(), length);
        println!("idle, {streams} streams: {rate:.1} transactions/s");
    }
}

async fn transactions(client: &Client) -> i64 {
    let statement = "SELECT xact_commit + xact_rollback FROM pg_stat_database
        WHERE datname = current_database()";
    client.query_one(statement, &[]).await.unwrap().get(0)
}
