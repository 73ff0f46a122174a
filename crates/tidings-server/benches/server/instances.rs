//! Servers on PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_notify::postgres::{PostgresOptions, PostgresStore};
use tidings_notify::{Draft, EventType, Payload, Store as _, UserId};
use tidings_postgres::tokio_postgres::Statement;
use tidings_postgres::tokio_postgres::types::ToSql;
use tidings_postgres::{Client, Config};
use tidings_test_support::Schema;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::arrivals::Arrivals;
use crate::server::{Poster, Server};
use crate::{per_second, webhooks};

/// Rows that share a commit: what 64 posters can have waiting at the same time.
const BATCH: usize = 64;

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
    SELECT user_id, seq, 'order.paid', payload, 0
    FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given (user_id, seq, payload)";

fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL database")
}

/// What an accepted notification without a webhook must leave behind: its event, and the counts of its log.
const ACCEPTED: &str = "
    WITH given AS MATERIALIZED (
        SELECT log.id AS log, given.seq, given.payload
        FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given (user_id, seq, payload)
        JOIN tidings_notify_log AS log ON log.user_id = given.user_id COLLATE \"C\"
    ), counted AS (
        UPDATE tidings_notify_log AS log SET
            top_seq = added.top_seq, unread = log.unread + added.events,
            unseen = log.unseen + added.events, changed = pg_current_xact_id()
        FROM (SELECT log, max(seq) AS top_seq, count(*) AS events FROM given GROUP BY log) AS added
        WHERE log.id = added.log
    )
    INSERT INTO tidings_notify_event (log, seq, timestamp, latest_at, stored_at, type, payload)
    SELECT log, seq, 0, 0, 0, 'order.paid', payload FROM given";

async fn database() -> Client {
    Config::new(&url()).unwrap().connect().await.unwrap()
}

/// Accepting on PostgreSQL, beside the inserts alone.
pub(crate) async fn beside_the_database_alone(length: Duration) {
    let batches = inserts(length).await;
    println!(
        "postgres, inserts alone, {BATCH} a commit, one batch after the other: {batches:.0} rows/s"
    );
    let posters = group_commit(length).await;
    println!(
        "postgres, inserts alone, {BATCH} callers that wait for their rows: {posters:.0} rows/s"
    );
    let same = same_rows(length).await;
    println!("postgres, the rows of an accept alone, {BATCH} a commit: {same:.0} events/s");
    let stored = logs_alone(length).await;
    println!(
        "postgres, the logs alone, {BATCH} callers that wait for their events: {stored:.0} events/s, \
         {:.2} of the batches, {:.2} of the same rows, {:.2} of the callers",
        stored / batches,
        stored / same,
        stored / posters
    );
    let schema = Schema::create().await;
    let server = Server::on(&schema.url());
    let requests = webhooks::ask(&server, length).await;
    println!("postgres, requests without the database, 64 callers: {requests:.0}/s");
    drop((server, schema));
    for endpoints in [0, 1] {
        // The lead of a server that was killed would keep the next one waiting.
        let schema = Schema::create().await;
        let accepted = webhooks::accept(&Server::on(&schema.url()), endpoints, length).await;
        println!(
            "postgres, {endpoints} endpoints: {:.2} of the batches, {:.2} of the same rows, {:.2} of the callers, \
             {:.2} of the requests",
            accepted / batches,
            accepted / same,
            accepted / posters,
            accepted / requests
        );
    }
    let schema = Schema::create().await;
    let accepted = webhooks::accept_batches(&Server::on(&schema.url()), length).await;
    println!(
        "postgres, posters of batches: {:.2} of the batches, {:.2} of the same rows",
        accepted / batches,
        accepted / same
    );
}

/// Rows on their way to the table.
#[derive(Default)]
struct Rows {
    users: Vec<String>,
    numbers: Vec<i64>,
    payloads: Vec<String>,
}

impl Rows {
    fn push(&mut self, number: usize) {
        self.users.push(format!("user{}", number % 100));
        self.numbers.push(i64::try_from(number).unwrap());
        self.payloads.push("x".repeat(100));
    }

    async fn insert(&self, client: &Client, insert: &Statement) {
        let columns: [&(dyn ToSql + Sync); 3] = [&self.users, &self.numbers, &self.payloads];
        let inserted = client.execute(insert, &columns).await.unwrap();
        assert_eq!(usize::try_from(inserted), Ok(self.users.len()));
    }
}

/// Commits batch after batch over one connection, and returns the rows a second.
async fn batch_after_batch(client: &Client, insert: &str, length: Duration) -> f64 {
    let insert = client.prepare(insert).await.unwrap();
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < length {
        let mut batch = Rows::default();
        (rows..rows + BATCH).for_each(|number| batch.push(number));
        batch.insert(client, &insert).await;
        rows += BATCH;
    }
    per_second(rows, started.elapsed())
}

async fn inserts(length: Duration) -> f64 {
    let client = database().await;
    client.batch_execute(TABLE).await.unwrap();
    let rate = batch_after_batch(&client, INSERT, length).await;
    drop_table(&client).await;
    rate
}

/// The rows that the server writes as well, in one statement that checks nothing. Returns the events a second.
async fn same_rows(length: Duration) -> f64 {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let store = PostgresStore::open(config.clone(), PostgresOptions::default()).await;
    store.unwrap().close().await;
    let client = config.connect().await.unwrap();
    let users = "INSERT INTO tidings_notify_log (user_id, epoch, line)
        SELECT 'user' || n, 0, 0 FROM generate_series(0, 99) AS n";
    client.batch_execute(users).await.unwrap();
    batch_after_batch(&client, ACCEPTED, length).await
}

/// As many callers, each of which waits for the commit of its row before the next; those that wait at the same
/// time share a commit. Returns the rows a second.
async fn group_commit(length: Duration) -> f64 {
    let client = database().await;
    client.batch_execute(TABLE).await.unwrap();
    let insert = client.prepare(INSERT).await.unwrap();
    let (queue, mut waiting) = mpsc::channel::<oneshot::Sender<()>>(BATCH);
    for _ in 0..BATCH {
        let queue = queue.clone();
        tokio::spawn(async move {
            loop {
                let (done, is_done) = oneshot::channel();
                if queue.send(done).await.is_err() || is_done.await.is_err() {
                    return;
                }
            }
        });
    }
    let (started, mut rows) = (Instant::now(), 0);
    let mut callers = Vec::with_capacity(BATCH);
    while started.elapsed() < length {
        let count = waiting.recv_many(&mut callers, BATCH).await;
        let mut batch = Rows::default();
        (rows..rows + count).for_each(|number| batch.push(number));
        batch.insert(&client, &insert).await;
        rows += count;
        for caller in callers.drain(..) {
            let _measured = caller.send(());
        }
    }
    let rate = per_second(rows, started.elapsed());
    drop_table(&client).await;
    rate
}

/// The same callers over the store of the users' logs, without a server. Returns the events a second.
async fn logs_alone(length: Duration) -> f64 {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let store = PostgresStore::open(config, PostgresOptions::default()).await;
    let store = store.unwrap();
    let started = Instant::now();
    let callers: Vec<_> = (0..BATCH)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < length {
                    let user = UserId::new(format!("user{}", (caller + count) % 100)).unwrap();
                    let event_type = EventType::new("order.paid").unwrap();
                    let payload = Payload::from_value(&"x".repeat(98)).unwrap();
                    let draft = Draft::new(user, event_type, payload);
                    store.append(vec![draft]).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await.unwrap();
    }
    let rate = per_second(count, started.elapsed());
    store.close().await;
    rate
}

async fn drop_table(client: &Client) {
    client
        .batch_execute("DROP TABLE tidings_bench")
        .await
        .unwrap();
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
