//! `scripts/services cargo bench -p tidings-pubsub --all-features`: what the brokers add to their
//! engines. Names of engines after `--` choose some of them.
//!
//! Each figure stands beside that of the engine alone, as one would use it by hand, taken in the same
//! round against the same server; the ratio is the median of the rounds. More is better: 1.00 means
//! that a broker costs nothing.

#![allow(
    clippy::unwrap_used,
    clippy::future_not_send,
    reason = "a benchmark fails by panicking, and prints its figures"
)]

#[path = "brokers/memory.rs"]
mod memory;
#[path = "brokers/postgres.rs"]
mod postgres;
#[path = "brokers/redis.rs"]
mod redis;

use bytes::Bytes;
use futures_util::future::join_all;
use tidings_bench::{Latencies, Rate, Row};
use tidings_pubsub::postgres::{PostgresBroker, PostgresOptions};
use tidings_pubsub::redis::{RedisBroker, RedisOptions};
use tidings_pubsub::{
    Broker, MemoryBroker, Namespace, Publisher, Received, SubscribeOptions, Subscription, Topic,
};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const SUBSCRIBERS: usize = 1000;
/// How many messages a subscriber of the fan-out gets.
const FAN_OUT: usize = 200;
/// What figures are compared with.
const ALONE: &str = "its client alone";
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
        compare("memory", &MemoryBroker::new(), &raw, 400_000).await;
        called_directly(&MemoryBroker::new()).await;
    }
    if is_chosen("redis") {
        let url = std::env::var("REDIS_URL").expect("scripts/services sets REDIS_URL");
        let broker = RedisBroker::open(
            tidings_redis::Config::new(&url).unwrap(),
            RedisOptions::default(),
        );
        compare("Redis", &broker, &redis::Raw::connect(&url).await, 40_000).await;
    }
    if is_chosen("postgres") {
        let url = std::env::var("DATABASE_URL").expect("scripts/services sets DATABASE_URL");
        let broker = PostgresBroker::open(
            tidings_postgres::Config::new(&url).unwrap(),
            PostgresOptions::default(),
        );
        let raw = postgres::Raw::connect(&url).await;
        compare("PostgreSQL", &broker, &raw, 8_000).await;
    }
}

/// What a call through the trait costs, which allocates, beside one of the broker itself.
async fn called_directly(broker: &MemoryBroker) {
    const COUNT: usize = 2_000_000;
    let topic = &topic("bench");
    let payload = || Bytes::from_static(&PAYLOAD);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let through = async || Publisher::publish(broker, topic, payload()).await.unwrap();
        let itself = async || {
            MemoryBroker::publish(broker, topic, payload())
                .await
                .unwrap();
        };
        let direct = rate(COUNT, 1, itself).await;
        rounds.push((direct, rate(COUNT, 1, through).await));
    }
    let what = "memory, publish without a subscriber, through the trait";
    emit(what, "messages/s", "the broker itself", rounds);
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
    let topic = &topic("bench");
    let publish = async || {
        let sent = broker.publish(topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    for (publishers, count) in [(1, count / 10), (8, count / 2), (64, count)] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let alone = rate(count, publishers, async || raw.publish(topic).await).await;
            rounds.push((alone, rate(count, publishers, publish).await));
        }
        let what = format!("{name}, publish, {publishers} at a time");
        emit(&what, "messages/s", ALONE, rounds);
    }

    let (mut alone, mut ours) = (Latencies::default(), Latencies::default());
    for _ in 0..ROUNDS {
        alone.extend(latency_of_raw(raw).await);
        ours.extend(latency_of(broker).await);
    }
    Row::time(&format!("{name}, publish to arrival"), &ours)
        .beside(ALONE, &alone)
        .emit();

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = fan_out_of_raw(raw).await;
        rounds.push((alone, fan_out_of(broker).await));
    }
    let what = format!("{name}, arrivals at {SUBSCRIBERS} receivers");
    emit(&what, "messages/s", ALONE, rounds);
}

/// The round in the middle by its ratio.
fn emit(what: &str, unit: &str, beside: &str, mut rounds: Vec<(Rate, Rate)>) {
    let ratio = |(alone, ours): &(Rate, Rate)| ours.per_second / alone.per_second;
    rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let (alone, ours) = rounds[rounds.len() / 2];
    Row::rate(what, unit, ours).beside(beside, alone).emit();
}

/// Calls per second, so many at a time. A clock is asked for every eighth, which takes a part of the time of the
/// fastest.
async fn rate(count: usize, at_a_time: usize, call: impl AsyncFn()) -> Rate {
    let started = Instant::now();
    let calls = join_all((0..at_a_time).map(|_| async {
        let mut latencies = Latencies::default();
        for n in 0..count / at_a_time {
            if n % 8 == 0 {
                let began = Instant::now();
                call().await;
                latencies.add(began.elapsed());
            } else {
                call().await;
            }
        }
        latencies
    }))
    .await;
    let latencies = calls.into_iter().flatten().collect();
    Rate::new(count, started.elapsed(), &latencies)
}

async fn latency_of_raw(raw: &impl Raw) -> Latencies {
    let topic = topic("latency");
    let receiver = raw.subscribe(&topic, 1).await.remove(0);
    latency(async || raw.publish(&topic).await, receiver).await
}

async fn latency_of(broker: &impl Broker) -> Latencies {
    let topic = topic("latency");
    let subscribed = broker.subscribe(vec![topic.clone()], SubscribeOptions::default());
    let receiver = subscribed.await.unwrap();
    let publish = async || {
        let sent = broker.publish(&topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    latency(publish, receiver).await
}

/// How long messages take, one after the other.
async fn latency(publish: impl AsyncFn(), mut receiver: impl Receiver) -> Latencies {
    const MESSAGES: usize = 2000;
    let mut times = Latencies::default();
    for _ in 0..MESSAGES {
        let started = Instant::now();
        publish().await;
        receiver.recv().await;
        times.add(started.elapsed());
    }
    times
}

async fn fan_out_of_raw(raw: &impl Raw) -> Rate {
    let topic = topic("fan-out");
    let receivers = raw.subscribe(&topic, SUBSCRIBERS).await;
    fan_out(async || raw.publish(&topic).await, receivers).await
}

async fn fan_out_of(broker: &impl Broker) -> Rate {
    let topic = topic("fan-out");
    let options = SubscribeOptions::default().with_capacity(FAN_OUT);
    let subscribing = (0..SUBSCRIBERS).map(|_| broker.subscribe(vec![topic.clone()], options));
    let subscribed = join_all(subscribing).await;
    let receivers = subscribed.into_iter().map(Result::unwrap).collect();
    let publish = async || {
        let sent = broker.publish(&topic, Bytes::from_static(&PAYLOAD));
        sent.await.unwrap();
    };
    fan_out(publish, receivers).await
}

/// How many messages per second arrive, at all receivers together, with the time until a receiver has all.
async fn fan_out(publish: impl AsyncFn(), receivers: Vec<impl Receiver>) -> Rate {
    let arrivals = receivers.len() * FAN_OUT;
    let started = Instant::now();
    let readers = receivers.into_iter().map(|mut receiver| {
        tokio::spawn(async move {
            for _ in 0..FAN_OUT {
                receiver.recv().await;
            }
            started.elapsed()
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..FAN_OUT {
        publish().await;
    }
    let mut times = Latencies::default();
    for reader in readers {
        times.add(reader.await.unwrap());
    }
    Rate::new(arrivals, started.elapsed(), &times)
}

fn topic(name: &str) -> Topic {
    Namespace::default().topic(name).unwrap()
}
