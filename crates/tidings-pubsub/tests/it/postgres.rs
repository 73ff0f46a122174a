//! What is particular to PostgreSQL.

use std::time::Duration;

use bytes::Bytes;
use tidings_pubsub::postgres::{Config, PostgresBroker, PostgresOptions};
use tidings_pubsub::{Lagged, Publisher, Received, SubscribeOptions, Subscriber, Topic};
use tidings_test_support::{Fault, Log, PostgresOutage, PostgresServer, Proxy, soon};
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;
use tracing::span::{Attributes, Id, Record};

use crate::faults::{HEALTH_INTERVAL, REPLY_LIMIT, message, publish, recv, subscribe, topics};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL is set; scripts/services does so")
}

pub(crate) fn broker() -> PostgresBroker {
    PostgresBroker::open(Config::new(&url()).unwrap(), PostgresOptions::default())
}

fn impatient(url: &str) -> PostgresBroker {
    checked(url, HEALTH_INTERVAL)
}

/// One that looks for its server so rarely that no test lives to see it.
fn unchecked(url: &str) -> PostgresBroker {
    checked(url, Duration::from_secs(3600))
}

fn checked(url: &str, interval: Duration) -> PostgresBroker {
    let config = Config::new(url)
        .unwrap()
        .with_reply_limit(REPLY_LIMIT)
        .with_health_interval(interval);
    PostgresBroker::open(config, PostgresOptions::default())
}

mod faults {
    crate::faults::fault_tests! { crate::postgres::url(), super::unchecked;
        closing_in_an_outage_does_not_wait
    }

    crate::faults::fault_tests!(crate::postgres::url(), super::impatient, connections: 2);
}

/// A client with a schema of its own, and the URL that leads to it.
struct Schema {
    url: String,
    client: Client,
    _task: AbortOnDropHandle<Result<(), tokio_postgres::Error>>,
}

impl Schema {
    async fn create(name: &str) -> Self {
        let name = format!("test_{name}_{}", std::process::id());
        let url = format!("{}?options=-csearch_path%3D{name}", url());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let task = AbortOnDropHandle::new(tokio::spawn(connection));
        let create = format!("CREATE SCHEMA {name}");
        client.batch_execute(&create).await.unwrap();
        Self {
            url,
            client,
            _task: task,
        }
    }

    async fn bodies(&self) -> i64 {
        let count = "SELECT count(*) FROM tidings_pubsub_bodies";
        self.client.query_one(count, &[]).await.unwrap().get(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_backend_is_replaced_and_the_gap_reported() {
    let schema = Schema::create("terminated").await;
    let name = format!("terminated-{}", std::process::id());
    let broker = impatient(&format!("{}?application_name={name}", url()));
    let [topic] = topics(["terminated"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for _ in 0..3 {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = $1";
        let terminated = schema.client.query(terminate, &[&name]).await.unwrap();
        assert!(!terminated.is_empty());
        let lagged = Received::Lagged(Lagged::unknown());
        assert_eq!(recv(&mut subscription).await, lagged);
        publish(&broker, &topic, "after").await;
        assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_listens_at_a_url_of_its_own() {
    let publishing = Proxy::start(&url()).await.unwrap();
    let listening = Proxy::start(&url()).await.unwrap();
    let config = Config::new(publishing.url())
        .unwrap()
        .with_listen_url(listening.url())
        .unwrap();
    let broker = PostgresBroker::open(config, PostgresOptions::default());
    let [topic] = topics(["apart"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    assert_eq!((publishing.accepted(), listening.accepted()), (0, 1));
    publish(&broker, &topic, vec![7; 10_000]).await;
    let expected = message(&topic, vec![7; 10_000]);
    assert_eq!(recv(&mut subscription).await, expected);
    // One to publish, one to fetch the large message.
    assert_eq!((publishing.accepted(), listening.accepted()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_deleted_once_they_are_old() {
    let schema = Schema::create("old").await;
    let options =
        PostgresOptions::default().with_large_message_retention(Duration::from_millis(300));
    let broker = PostgresBroker::open(Config::new(&schema.url).unwrap(), options);
    let [topic] = topics(["old"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for _ in 0..2 {
        publish(&broker, &topic, vec![7; 10_000]).await;
        let expected = message(&topic, vec![7; 10_000]);
        assert_eq!(recv(&mut subscription).await, expected);
        soon("the row to be deleted", async {
            while schema.bodies().await != 0 {}
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_send_the_first_large_message_create_one_table() {
    let schema = Schema::create("race").await;
    let brokers: [PostgresBroker; 8] = std::array::from_fn(|_| impatient(&schema.url));
    let [topic] = topics(["race"]);
    let mut subscription = subscribe(&brokers[0], [&topic]).await;
    let sending = brokers
        .iter()
        .map(|it| publish(it, &topic, vec![7; 10_000]));
    futures_util::future::join_all(sending).await;
    for _ in &brokers {
        let expected = message(&topic, vec![7; 10_000]);
        assert_eq!(recv(&mut subscription).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_that_cannot_be_fetched_is_reported() {
    // A row that the subscriber cannot see is as good as deleted.
    let (near, far) = (Schema::create("near").await, Schema::create("far").await);
    let (reader, writer) = (impatient(&near.url), impatient(&far.url));
    let [topic] = topics(["unfetched"]);
    let mut subscription = subscribe(&reader, [&topic]).await;
    publish(&writer, &topic, vec![7; 10_000]).await;
    publish(&writer, &topic, "after").await;
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
}

/// Panics at each warning.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        panic!("as the test wants: {event:?}");
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_layer_that_panics_over_a_large_message_holds_up_none_behind_it() {
    let (near, far) = (
        Schema::create("layer_near").await,
        Schema::create("layer_far").await,
    );
    let (reader, writer) = (impatient(&near.url), impatient(&far.url));
    let [topic] = topics(["layer"]);
    let mut subscription = subscribe(&reader, [&topic]).await;
    let _default = tidings_test_support::set_default(Panics);
    for _ in 0..2 {
        publish(&writer, &topic, vec![7; 10_000]).await;
        publish(&writer, &topic, "after").await;
        let lagged = Received::Lagged(Lagged::unknown());
        assert_eq!(recv(&mut subscription).await, lagged);
        assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_others_are_ignored() {
    let schema = Schema::create("others").await;
    let broker = broker();
    let [topic] = topics(["others"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    let channels = "SELECT 'tidings_' || substr(encode(sha256($1::bytea), 'hex'), 1, 32)";
    let name = topic.as_str().as_bytes();
    let row = schema.client.query_one(channels, &[&name]).await.unwrap();
    let channel: String = row.get(0);
    for payload in ["", "nonsense", "1.", "1.!", "@1.", "@x.eA", "1.AAAA"] {
        let notify = "SELECT pg_notify($1, $2)";
        schema
            .client
            .query(notify, &[&channel, &payload])
            .await
            .unwrap();
    }
    publish(&broker, &topic, "ours").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_recovers_is_found_again() {
    let server = PostgresServer::start().unwrap();
    let broker = impatient(&server.url());
    let [topic] = topics(["crashed"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    // Recovery empties the table of the large ones.
    let large = Bytes::from("x".repeat(20_000));
    publish(&broker, &topic, large.clone()).await;
    assert_eq!(
        recv(&mut subscription).await,
        message(&topic, large.clone())
    );
    for _ in 0..2 {
        server.crash().unwrap();
        server.start_again().unwrap();
        let lagged = Received::Lagged(Lagged::unknown());
        assert_eq!(recv(&mut subscription).await, lagged);
        for payload in [Bytes::from("after"), large.clone()] {
            publish(&broker, &topic, payload.clone()).await;
            assert_eq!(recv(&mut subscription).await, message(&topic, payload));
        }
    }
}

#[tokio::test]
async fn regression_a_standby_is_left_with_one_log_line_however_many_topics_there_are() {
    let log = Log::default();
    let _listening = log.listen();
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let proxy = Proxy::start(&primary.url()).await.unwrap();
    let broker = impatient(proxy.url());
    let [prefix] = topics(["standby"]);
    let topics: Vec<Topic> = (0..100)
        .map(|number| format!("{prefix}-{number}").parse().unwrap())
        .collect();
    let options = SubscribeOptions::default().with_capacity(1000);
    let mut subscription = broker.subscribe(topics.clone(), options).await.unwrap();
    publish(&broker, &topics[0], "before").await;
    assert_eq!(recv(&mut subscription).await, message(&topics[0], "before"));

    // The name leads to the standby before it is promoted.
    proxy.lead_to(&standby.url()).unwrap();
    primary.crash().unwrap();
    let attempts = proxy.accepted();
    soon("some attempts", async {
        while proxy.accepted() < attempts + 8 {
            let failed = broker.publish(&topics[0], "nowhere".into()).await;
            assert!(failed.is_err());
            tokio::time::sleep(HEALTH_INTERVAL).await;
        }
    })
    .await;
    standby.promote().unwrap();
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    for topic in [&topics[0], &topics[99]] {
        publish(&broker, topic, "after").await;
        assert_eq!(recv(&mut subscription).await, message(topic, "after"));
    }
    soon("the log", log.has(1, "INFO")).await;
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_survived() {
    let mut outage = PostgresOutage::start().await.unwrap();
    crate::faults::every_fault_is_survived(&mut outage, impatient, &[Fault::Fill]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_while_reconnecting_does_not_wait() {
    let mut outage = PostgresOutage::start().await.unwrap();
    crate::faults::closing_while_reconnecting_does_not_wait(&mut outage, impatient).await;
}

/// Fetched one after the other within the loop that listens, they take several times as long as the server
/// may be silent, and so does the reply to a ping behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_many_large_messages_over_a_slow_connection_are_no_outage() {
    const MESSAGES: usize = 200;
    let proxy = Proxy::start(&url()).await.unwrap();
    proxy.set_latency(Duration::from_millis(20));
    let (near, far) = (impatient(proxy.url()), broker());
    let [topic] = topics(["large"]);
    let options = SubscribeOptions::default().with_capacity(2 * MESSAGES);
    let mut subscription = near.subscribe(vec![topic.clone()], options).await.unwrap();
    let mut expected = Vec::new();
    let begun = tokio::time::Instant::now();
    for number in 0..MESSAGES {
        let size = if number % 10 == 0 { 10 } else { 10_000 };
        let payload = vec![u8::try_from(number).unwrap(); size];
        publish(&far, &topic, payload.clone()).await;
        expected.push(message(&topic, payload));
    }
    for expected in &expected {
        assert!(recv(&mut subscription).await == *expected);
    }
    // Some are fetched at the same time: one by one they would take 40 ms each, and more.
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(40) * 180, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_may_be_kept_for_as_long_as_a_caller_likes() {
    let schema = Schema::create("kept").await;
    let options = PostgresOptions::default().with_large_message_retention(Duration::MAX);
    let broker = PostgresBroker::open(Config::new(&schema.url).unwrap(), options);
    let [topic] = topics(["kept"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for _ in 0..2 {
        publish(&broker, &topic, vec![7; 10_000]).await;
        let expected = message(&topic, vec![7; 10_000]);
        assert_eq!(recv(&mut subscription).await, expected);
    }
}

/// By those that publish and by those that fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_a_process_leaves_behind_is_deleted_by_others() {
    let schema = Schema::create("left").await;
    let open = |retention| {
        let options = PostgresOptions::default().with_large_message_retention(retention);
        PostgresBroker::open(Config::new(&schema.url).unwrap(), options)
    };
    let [topic] = topics(["left"]);
    for publishes in [true, false] {
        let other = open(Duration::from_millis(300));
        let mut subscription = subscribe(&other, [&topic]).await;
        // It ends before it would delete anything itself.
        let gone = open(Duration::from_secs(3600));
        publish(&gone, &topic, vec![7; 10_000]).await;
        drop(gone);
        let expected = message(&topic, vec![7; 10_000]);
        assert_eq!(recv(&mut subscription).await, expected);
        let other = if publishes {
            drop((subscription, other));
            let other = open(Duration::from_millis(300));
            publish(&other, &topic, "small").await;
            other
        } else {
            other
        };
        soon("the row to be deleted", async {
            while schema.bodies().await != 0 {}
        })
        .await;
        drop(other);
    }
}
