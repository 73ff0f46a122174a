//! `scripts/services cargo bench -p tidings-pubsub --all-features`: what the brokers add to their
//! engines.
//!
//! Each figure stands beside that of the client library alone, taken in the same round against the
//! same server; the ratio is the median of the rounds, and 1.00 means that a broker costs nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::future_not_send,
    reason = "a benchmark fails by panicking, and tells by printing"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_pubsub::{
    Broker, Memory, Namespace, Options, Postgres, Received, Redis, Subscription, Topic,
};
use tokio::time::Instant;

const ROUNDS: usize = 5;
const PUBLISHERS: usize = 64;
const SUBSCRIBERS: usize = 1000;
const PAYLOAD: [u8; 256] = [b'x'; 256];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let redis_url = std::env::var("REDIS_URL").expect("scripts/services sets REDIS_URL");
    let postgres_url = std::env::var("DATABASE_URL").expect("scripts/services sets DATABASE_URL");

    let redis = Redis::new(tidings_redis::Config::new(&redis_url).unwrap());
    compare(
        "Redis",
        &redis,
        &RawRedis::connect(&redis_url).await,
        40_000,
    )
    .await;
    let postgres = Postgres::new(tidings_postgres::Config::new(&postgres_url).unwrap());
    let raw = RawPostgres::connect(&postgres_url).await;
    compare("PostgreSQL", &postgres, &raw, 10_000).await;

    println!("\nfan-out to {SUBSCRIBERS} subscriptions, deliveries/s");
    println!("  memory      {:>10.0}", fan_out(&Memory::new()).await);
    println!("  Redis       {:>10.0}", fan_out(&redis).await);
    println!("  PostgreSQL  {:>10.0}", fan_out(&postgres).await);
}

/// The client library alone, as one would use it.
trait Raw: Send + Sync {
    fn publish(&self, topic: &Topic) -> impl Future<Output = ()> + Send;

    /// How long one message takes from the call to its arrival at one listening connection.
    fn round_trip(&self, count: usize) -> impl Future<Output = Duration> + Send;
}

async fn compare(name: &str, broker: &impl Broker, raw: &impl Raw, count: usize) {
    println!("\n{name}, 256 bytes                    raw      broker   ratio");
    let topic = &topic("bench");
    let publish = async || broker.publish(topic, &PAYLOAD[..]).await.unwrap();

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let left = rate(count / 20, 1, async || raw.publish(topic).await).await;
        let right = rate(count / 20, 1, publish).await;
        rounds.push((left, right, right / left));
    }
    print("publish/s, one at a time", rounds);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let left = rate(count, PUBLISHERS, async || raw.publish(topic).await).await;
        let right = rate(count, PUBLISHERS, publish).await;
        rounds.push((left, right, right / left));
    }
    print("publish/s, 64 at a time", rounds);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let left = raw.round_trip(1000).await.as_secs_f64() * 1e6;
        let right = round_trip(broker, 1000).await.as_secs_f64() * 1e6;
        rounds.push((left, right, left / right));
    }
    print("µs from publish to arrival", rounds);
}

fn print(what: &str, mut rounds: Vec<(f64, f64, f64)>) {
    rounds.sort_by(|one, other| one.2.total_cmp(&other.2));
    let (left, right, ratio) = rounds[rounds.len() / 2];
    println!("  {what:<28}{left:>10.0}  {right:>10.0}    {ratio:.2}");
}

/// Calls per second, so many at a time.
async fn rate(count: usize, at_a_time: usize, call: impl AsyncFn()) -> f64 {
    let started = Instant::now();
    join_all((0..at_a_time).map(|_| async {
        for _ in 0..count / at_a_time {
            call().await;
        }
    }))
    .await;
    count as f64 / started.elapsed().as_secs_f64()
}

/// The median time from publish to arrival.
async fn round_trip(broker: &impl Broker, count: usize) -> Duration {
    let topic = topic("latency");
    let subscribed = broker.subscribe([topic.clone()], Options::default());
    let mut subscription = subscribed.await.unwrap();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        broker.publish(&topic, &PAYLOAD[..]).await.unwrap();
        received(&mut subscription).await;
        times.push(started.elapsed());
    }
    median(times)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Copies per second that arrive at a thousand subscriptions of one topic.
async fn fan_out(broker: &impl Broker) -> f64 {
    const MESSAGES: usize = 300;
    let topic = topic("fan-out");
    let options = Options::default().with_capacity(MESSAGES);
    let subscribing = (0..SUBSCRIBERS).map(|_| broker.subscribe([topic.clone()], options));
    let subscriptions = join_all(subscribing).await;
    let started = Instant::now();
    let readers = subscriptions.into_iter().map(|subscription| {
        let mut subscription = subscription.unwrap();
        tokio::spawn(async move {
            for _ in 0..MESSAGES {
                received(&mut subscription).await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..MESSAGES {
        broker.publish(&topic, &PAYLOAD[..]).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    (MESSAGES * SUBSCRIBERS) as f64 / started.elapsed().as_secs_f64()
}

async fn received(subscription: &mut Subscription) {
    match subscription.recv().await {
        Some(Received::Message(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn topic(name: &str) -> Topic {
    Namespace::default().topic(name).unwrap()
}

struct RawRedis {
    publishing: redis::aio::MultiplexedConnection,
    url: String,
}

impl RawRedis {
    async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        Self {
            publishing: client.get_multiplexed_async_connection().await.unwrap(),
            url: url.to_owned(),
        }
    }

    async fn send(&self, channel: &str) {
        redis::cmd("PUBLISH")
            .arg(channel)
            .arg(&PAYLOAD[..])
            .exec_async(&mut self.publishing.clone())
            .await
            .unwrap();
    }
}

impl Raw for RawRedis {
    async fn publish(&self, topic: &Topic) {
        self.send(topic.as_str()).await;
    }

    async fn round_trip(&self, count: usize) -> Duration {
        let (pushes, mut arrived) = tokio::sync::broadcast::channel(16);
        let config = redis::AsyncConnectionConfig::new().set_push_sender(pushes);
        let client = redis::Client::open(format!("{}?protocol=resp3", self.url)).unwrap();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut listening = connecting.await.unwrap();
        listening.subscribe("raw").await.unwrap();
        while arrived.recv().await.unwrap().kind != redis::PushKind::Subscribe {}
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            self.send("raw").await;
            arrived.recv().await.unwrap();
            times.push(started.elapsed());
        }
        median(times)
    }
}

struct RawPostgres {
    publishing: Arc<tokio_postgres::Client>,
    notify: tokio_postgres::Statement,
    url: String,
}

impl RawPostgres {
    async fn connect(url: &str) -> Self {
        let connecting = tokio_postgres::connect(url, tokio_postgres::NoTls);
        let (client, connection) = connecting.await.unwrap();
        tokio::spawn(connection);
        Self {
            notify: client.prepare("SELECT pg_notify($1, $2)").await.unwrap(),
            publishing: Arc::new(client),
            url: url.to_owned(),
        }
    }

    async fn send(&self, channel: &str) {
        let payload = str::from_utf8(&PAYLOAD).unwrap();
        self.publishing
            .execute(&self.notify, &[&channel, &payload])
            .await
            .unwrap();
    }
}

impl Raw for RawPostgres {
    async fn publish(&self, topic: &Topic) {
        self.send(topic.as_str()).await;
    }

    async fn round_trip(&self, count: usize) -> Duration {
        let connecting = tokio_postgres::connect(&self.url, tokio_postgres::NoTls);
        let (client, mut connection) = connecting.await.unwrap();
        let (arrive, mut arrived) = tokio::sync::mpsc::channel(16);
        let reading = tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                arrive.send(message.unwrap()).await.unwrap();
            }
        });
        client.batch_execute("LISTEN raw").await.unwrap();
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            self.send("raw").await;
            arrived.recv().await.unwrap();
            times.push(started.elapsed());
        }
        reading.abort();
        median(times)
    }
}
