//! Servers on PostgreSQL.

use std::time::Duration;

use tidings_bench::{Latencies, Rate, Row, Target, number};
use tidings_notify::postgres::{PostgresOptions, PostgresStore};
use tidings_notify::{Draft, EventType, Payload, Store as _, UserId};
use tidings_postgres::tokio_postgres::Statement;
use tidings_postgres::tokio_postgres::types::ToSql;
use tidings_postgres::{Client, Config};
use tidings_test_support::Schema;
use tidings_webhooks::Store as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::Server;
use crate::{accept, live, load, streams, webhooks};

/// Rows that share a commit: what 64 posters can have waiting at the same time.
const BATCH: usize = 64;

/// Notifications a second, one for each user in turn.
const RATE: usize = 500;
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

/// What its fan-out leaves behind: the event of a webhook, and its delivery.
const FANNED_OUT: &str = "
    WITH added AS (
        INSERT INTO tidings_webhook_event
            (id, user_id, type, timestamp, payload, accepted_at, has_delivery)
        SELECT user_id || '-' || seq, user_id, 'order.paid', 0, payload, 0, true
        FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given (user_id, seq, payload)
        RETURNING event
    )
    INSERT INTO tidings_webhook_delivery (event, endpoint, state, due_at, created_at)
    SELECT event, 0, 0, 0, 0 FROM added";

/// What the outcomes of these events leave behind.
const DELIVERED: &str = "
    WITH ended AS (
        UPDATE tidings_webhook_delivery
        SET state = 1, attempts = 1, tries = 1, due_at = NULL, finished_at = 0
        WHERE event = ANY ($1)
        RETURNING delivery
    )
    INSERT INTO tidings_webhook_attempt (delivery, number, started_at, duration, status, response)
    SELECT delivery, 1, 0, 0, 200, '' FROM ended";

async fn database() -> Client {
    Config::new(&url()).unwrap().connect().await.unwrap()
}

/// Accepting on PostgreSQL, beside the inserts alone.
pub(crate) async fn beside_the_database_alone(length: Duration) {
    let batches = inserts(length).await;
    let posters = group_commit(length).await;
    let same = same_rows(BATCH, length).await;
    let of_webhooks = rows_of_webhooks(length).await;
    let stored = logs_alone(length).await;
    let rate = || {
        Row::rate(
            "the logs alone, 64 callers that wait for their events",
            "events/s",
            stored,
        )
    };
    rate()
        .beside("inserts of the same rows, 64 a commit", same)
        .emit();
    rate()
        .beside("inserts of the least row, 64 callers that wait", posters)
        .emit();

    // The lead of a server that was killed would keep the next one waiting.
    for (endpoints, name, unit) in [
        (0, "accept, one a request, 64 posters", "events/s"),
        (
            1,
            "accept to webhook, 64 posters, one endpoint",
            "webhooks/s",
        ),
    ] {
        let schema = Schema::create().await;
        let accepted = webhooks::accept(&Server::on(&schema.url()), endpoints, length).await;
        let reached = if endpoints == 0 {
            accepted.posted
        } else {
            accepted.arrived
        };
        Row::rate(name, unit, reached)
            .beside("inserts of the same rows, 64 a commit", same)
            .target(Target::Ratio(0.3))
            .note(accepted.note())
            .emit();
        if endpoints > 0 {
            Row::rate(name, unit, reached)
                .beside("all rows of a webhook, 64 a commit", of_webhooks)
                .emit();
        }
        Row::rate(name, unit, reached)
            .beside("inserts of the least row, 64 a commit", batches)
            .emit();
    }
    let schema = Schema::create().await;
    let server = Server::on(&schema.url());
    let load = load::post(
        &server.address,
        vec![accept::batch(0..accept::BATCH)],
        length,
    )
    .await;
    let same = same_rows(BATCH * accept::BATCH, length).await;
    Row::rate(
        "accept, 100 a request, 64 posters",
        "events/s",
        load.rate(accept::BATCH),
    )
    .beside("inserts of the same rows, 6,400 a commit", same)
    .emit();
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

    /// Ends the deliveries of these rows, whose events the database numbers from 1.
    async fn end(&self, client: &Client, end: &Statement) {
        let events: Vec<_> = self.numbers.iter().map(|number| number + 1).collect();
        let ended = client.execute(end, &[&events]).await.unwrap();
        assert_eq!(usize::try_from(ended), Ok(events.len()));
    }
}

/// Commits batch after batch over one connection, and returns the rows a second.
async fn batch_after_batch(client: &Client, insert: &str, size: usize, length: Duration) -> Rate {
    let insert = client.prepare(insert).await.unwrap();
    let (started, mut rows, mut latencies) = (Instant::now(), 0, Latencies::default());
    while started.elapsed() < length {
        let began = Instant::now();
        let mut batch = Rows::default();
        (rows..rows + size).for_each(|number| batch.push(number));
        batch.insert(client, &insert).await;
        latencies.add(began.elapsed());
        rows += size;
    }
    Rate::new(rows, started.elapsed(), &latencies)
}

async fn inserts(length: Duration) -> Rate {
    let client = database().await;
    client.batch_execute(TABLE).await.unwrap();
    let rate = batch_after_batch(&client, INSERT, BATCH, length).await;
    drop_table(&client).await;
    rate
}

/// The rows that the server writes as well, in one statement that checks nothing. Returns the events per second.
async fn same_rows(size: usize, length: Duration) -> Rate {
    let schema = Schema::create().await;
    let client = with_logs(&schema).await;
    batch_after_batch(&client, ACCEPTED, size, length).await
}

/// A connection to a schema with the tables of users' logs, and a log of each user.
async fn with_logs(schema: &Schema) -> Client {
    let config = Config::new(&schema.url()).unwrap();
    let store = PostgresStore::open(config.clone(), PostgresOptions::default()).await;
    store.unwrap().close().await;
    let client = config.connect().await.unwrap();
    let users = "INSERT INTO tidings_notify_log (user_id, epoch, line)
        SELECT 'user' || n, 0, 0 FROM generate_series(0, 99) AS n";
    client.batch_execute(users).await.unwrap();
    client
}

/// All rows that a webhook leaves behind, in the three commits that it needs one after the other: before its event is
/// accepted, before it is sent, and after the reply. Nothing is checked or handed on. Returns the webhooks per second.
async fn rows_of_webhooks(length: Duration) -> Rate {
    let schema = Schema::create().await;
    let client = with_logs(&schema).await;
    let config = Config::new(&schema.url()).unwrap();
    let options = tidings_webhooks::postgres::PostgresOptions::default();
    let store = tidings_webhooks::postgres::PostgresStore::open(config, options).await;
    store.unwrap().close().await;
    // The database knows nothing of how large these tables become.
    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let accept = client.prepare(ACCEPTED).await.unwrap();
    let fan_out = client.prepare(FANNED_OUT).await.unwrap();
    let deliver = client.prepare(DELIVERED).await.unwrap();
    let (started, mut rows, mut latencies) = (Instant::now(), 0, Latencies::default());
    while started.elapsed() < length {
        let began = Instant::now();
        let mut batch = Rows::default();
        (rows..rows + BATCH).for_each(|number| batch.push(number));
        batch.insert(&client, &accept).await;
        batch.insert(&client, &fan_out).await;
        batch.end(&client, &deliver).await;
        latencies.add(began.elapsed());
        rows += BATCH;
    }
    Rate::new(rows, started.elapsed(), &latencies)
}

/// As many callers, each of which waits for the commit of its row before the next; those that wait at the same
/// time share a commit. Returns the rows a second.
async fn group_commit(length: Duration) -> Rate {
    let client = database().await;
    client.batch_execute(TABLE).await.unwrap();
    let insert = client.prepare(INSERT).await.unwrap();
    let mut waits = JoinSet::new();
    let (queue, mut waiting) = mpsc::channel::<oneshot::Sender<()>>(BATCH);
    for _ in 0..BATCH {
        let queue = queue.clone();
        waits.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let ((done, is_done), began) = (oneshot::channel(), Instant::now());
                if queue.send(done).await.is_err() || is_done.await.is_err() {
                    return latencies;
                }
                latencies.add(began.elapsed());
            }
        });
    }
    drop(queue);
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
    let elapsed = started.elapsed();
    drop(waiting);
    let latencies = waits.join_all().await.into_iter().flatten().collect();
    drop_table(&client).await;
    Rate::new(rows, elapsed, &latencies)
}

/// The same callers over the store of the users' logs, without a server. Returns the events per second.
async fn logs_alone(length: Duration) -> Rate {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let store = PostgresStore::open(config, PostgresOptions::default()).await;
    let store = store.unwrap();
    let started = Instant::now();
    let callers: Vec<_> = (0..BATCH)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut count, mut latencies) = (0, Latencies::default());
                while started.elapsed() < length {
                    let began = Instant::now();
                    let user = UserId::new(format!("user{}", (caller + count) % 100)).unwrap();
                    let event_type = EventType::new("order.paid").unwrap();
                    let payload = Payload::from_value(&"x".repeat(98)).unwrap();
                    let draft = Draft::new(user, event_type, payload);
                    store.append(vec![draft]).await.unwrap();
                    latencies.add(began.elapsed());
                    count += 1;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Latencies::default();
    for caller in callers {
        latencies.extend(caller.await.unwrap());
    }
    let rate = Rate::new(latencies.count(), started.elapsed(), &latencies);
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
    let alone = live::at_a_pace(&first.address, &first.address, "alone", USERS, RATE, length).await;
    let other = live::at_a_pace(
        &first.address,
        &second.address,
        "other",
        USERS,
        RATE,
        length,
    )
    .await;
    Row::time(
        "accept to the screen of another instance, 500 per second",
        &other,
    )
    .beside("of the same instance", &alone)
    .target(Target::P99(25.0))
    .emit();
}

/// After that, what opening streams has caused is over and counted: PostgreSQL counts the transactions of a connection
/// that rests up to ten seconds later (`PGSTAT_IDLE_INTERVAL`).
const SETTLED: Duration = Duration::from_secs(15);

/// How many transactions per second the database makes for a server with idle streams, and for one without.
pub(crate) async fn idle(length: Duration) {
    let client = database().await;
    let server = Server::on(&url());
    let mut rates = [0.0; 2];
    let mut open = Vec::new();
    for (streams, rate) in [0, STREAMS].into_iter().zip(&mut rates) {
        let requests = (0..streams)
            .map(|n| streams::events(&format!("idle{n}")))
            .collect();
        open.extend(streams::open_all(&server.address, requests, "caught_up").await);
        tokio::time::sleep(SETTLED).await;
        let before = transactions(&client).await;
        tokio::time::sleep(length).await;
        let made = transactions(&client).await - before;
        *rate = number(usize::try_from(made).unwrap()) / length.as_secs_f64();
    }
    let [without, with] = rates;
    Row::cost(
        &format!("transactions for {STREAMS} idle streams"),
        "a second",
        with,
    )
    .beside("no streams", without)
    .emit();
}

async fn transactions(client: &Client) -> i64 {
    let statement = "SELECT xact_commit + xact_rollback FROM pg_stat_database
        WHERE datname = current_database()";
    client.query_one(statement, &[]).await.unwrap().get(0)
}
