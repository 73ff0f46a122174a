//! `scripts/services cargo bench -p tidings-pubsub --all-features`: what the brokers add to their
//! engines. Names of engines after `--` choose some of them.
//!
//! Each figure stands beside that of the engine alone, as one would use it by hand, taken in the same
//! round against the same server; the ratio is the median of the rounds. More is better: 1.00 means
//! that a broker costs nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::future_not_send,
    reason = "a benchmark fails by panicking, and prints its figures"
)]

#[path = "brokers/memory.rs"]
mod memory;
#[path = "brokers/postgres.rs"]
mod postgres;
#[path = "brokers/redis.rs"]
mod redis;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidings_pubsub::{
    Broker, Memory, Namespace, Options, Postgres, PostgresOptions, Publisher, Received, Redis,
    RedisOptions, Subscription, Topic,
};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const SUBSCRIBERS: usize = 1000;
/// How many messages a subscriber of the fan-out gets.
const FAN_OUT: usize = 200;
const PAYLOAD: [u8; 256] = [b'x'; 256];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let is_chosen = |name: &str| {
        let mut names = chosen.iter().filter(|it| !it.starts_with('-')).peekable();
        names.peek().is_none() || names.any(|it| it == name)
    };
    if is_chosen("memory") {
        let raw = memory::Raw::new();
        compare("memory", &Memory::new(), &raw, 400_000).await;
        called_directly(&Memory::new()).await;
    }
    if is_chosen("redis") {
        let url = std::env::var("REDIS_URL").expect("scripts/services sets REDIS_URL");
        let broker = Redis::open(
            tidings_redis::Config::new(&url).unwrap(),
            RedisOptions::default(),
        );
        compare("Redis", &broker, &redis::Raw::connect(&url).await, 40_000).await;
    }
    if is_chosen("postgres") {
        let url = std::env::var("DATABASE_URL").expect("scripts/services sets DATABASE_URL");
        let broker = Postgres::open(
            tidings_postgres::Config::new(&url).unwrap(),
            PostgresOptions::default(),
        );
        let raw = postgres::Raw::connect(&url).await;
        compare("PostgreSQL", &broker, &raw, 8_000).await;
    }
}

/// What a call through the trait costs, which allocates, beside one of the broker itself.
async fn called_directly(broker: &Memory) {
    const COUNT: usize = 2_000_000;
    let topic = &topic("bench");
    let payload = || Bytes::from_static(&PAYLOAD);
    println!("\n{:<32}{:>12}{:>12}   ratio", "memory", "trait", "itself");
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let through = async || Publisher::publish(broker, topic, payload()).await.unwrap();
        let itself = async || Memory::publish(broker, topic, payload()).await.unwrap();
        let left = rate(COUNT, 1, through).await;
        let right = rate(COUNT, 1, itself).await;
        rounds.push((left, right, right / left));
    }
    print("publish/s without a subscriber", rounds);
}

/// The engine alone, as one would use it by hand.
trait Raw: Sync {
    type Receiver: Receiver;

    async fn publish(&self, topic: &Topic);

    /// Hands what is published to a topic to so many receivers, over one connection.
    async fn subscribe(&self, topic: &Topic, receivers: usize) -> Vec<Self::Receiver>;
}

trait Receiver: Send + 'static {
    fn recv(&mut self) -> impl Future<Output = ()> + Send;
}

impl Receiver for Subscription {
    async fn recv(&mut self) {
        match Subscription::recv(self).await {
            Some(Received::Message(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn compare(name: &str, broker: &impl Broker, raw: &impl Raw, count: usize) {
    println!("\n{name:<32}{:>12}{:>12}   ratio", "raw", "broker");
    let topic = &topic("bench");
    let publish = async || {
        let sent = broker.publish(topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    for (publishers, count) in [(1, count / 10), (8, count / 2), (64, count)] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let left = rate(count, publishers, async || raw.publish(topic).await).await;
            let right = rate(count, publishers, publish).await;
            rounds.push((left, right, right / left));
        }
        print(&format!("publish/s, {publishers} at a time"), rounds);
    }

    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let [median, tail] = latency_of_raw(raw).await;
        let [broker_median, broker_tail] = latency_of(broker).await;
        medians.push((median, broker_median, median / broker_median));
        tails.push((tail, broker_tail, tail / broker_tail));
    }
    print("µs from publish to arrival, p50", medians);
    print("µs from publish to arrival, p99", tails);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let left = fan_out_of_raw(raw).await;
        let right = fan_out_of(broker).await;
        rounds.push((left, right, right / left));
    }
    print(&format!("arrivals/s at {SUBSCRIBERS} receivers"), rounds);
}

fn print(what: &str, mut rounds: Vec<(f64, f64, f64)>) {
    rounds.sort_by(|one, other| one.2.total_cmp(&other.2));
    let (left, right, ratio) = rounds[rounds.len() / 2];
    println!("  {what:<30}{left:>12.0}{right:>12.0}    {ratio:.2}");
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

async fn latency_of_raw(raw: &impl Raw) -> [f64; 2] {
    let topic = topic("latency");
    let receiver = raw.subscribe(&topic, 1).await.remove(0);
    latency(async || raw.publish(&topic).await, receiver).await
}

async fn latency_of(broker: &impl Broker) -> [f64; 2] {
    let topic = topic("latency");
    let subscribed = broker.subscribe(vec![topic.clone()], Options::default());
    let receiver = subscribed.await.unwrap();
    let publish = async || {
        let sent = broker.publish(&topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    latency(publish, receiver).await
}

/// How many microseconds one message takes, the median and the 99th of a hundred.
async fn latency(publish: impl AsyncFn(), mut receiver: impl Receiver) -> [f64; 2] {
    const MESSAGES: usize = 2000;
    let mut times = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let started = Instant::now();
        publish().await;
        receiver.recv().await;
        times.push(started.elapsed());
    }
    times.sort();
    [times[MESSAGES / 2], times[MESSAGES * 99 / 100]].map(|it: Duration| it.as_secs_f64() * 1e6)
}

async fn fan_out_of_raw(raw: &impl Raw) -> f64 {
    let topic = topic("fan-out");
    let receivers = raw.subscribe(&topic, SUBSCRIBERS).await;
    fan_out(async || raw.publish(&topic).await, receivers).await
}

async fn fan_out_of(broker: &impl Broker) -> f64 {
    let topic = topic("fan-out");
    let options = Options::default().with_capacity(FAN_OUT);
    let subscribing = (0..SUBSCRIBERS).map(|_| broker.subscribe(vec![topic.clone()], options));
    let subscribed = join_all(subscribing).await;
    let receivers = subscribed.into_iter().map(Result::unwrap).collect();
    let publish = async || {
        let sent = broker.publish(&topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    fan_out(publish, receivers).await
}

/// How many messages per second arrive, at all receivers together.
async fn fan_out(publish: impl AsyncFn(), receivers: Vec<impl Receiver>) -> f64 {
    let arrivals = receivers.len() * FAN_OUT;
    let started = Instant::now();
    let readers = receivers.into_iter().map(|mut receiver| {
        tokio::spawn(async move {
            for _ in 0..FAN_OUT {
                receiver.recv().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..FAN_OUT {
        publish().await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    arrivals as f64 / started.elapsed().as_secs_f64()
}

fn topic(name: &str) -> Topic {
    Namespace::default().topic(name).unwrap()
}
