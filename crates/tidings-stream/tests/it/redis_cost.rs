//! That neither the length of a history nor idleness costs anything, counted in the commands that the
//! server runs, those inside of scripts included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::engine::{Claimed, Engine, GroupKey, Outcome, Settlement};
use tidings_stream::redis::RedisEngine;
use tidings_stream::{Headers, Retention, ServiceConfig, StartFrom, Streams, SubscribeOptions};
use tidings_test_support::RedisServer;
use tokio::time::Instant;

use crate::database::{NEVER, key, numbered, until};
use crate::redis::{Client, consumer, open};
use crate::wrapped::{Hook, Wrapped};

/// How often the server has run each command since it was last asked.
async fn commands(client: &Client) -> BTreeMap<String, u64> {
    let statistics: String = client.run(&["INFO", "commandstats"]).await;
    client.run::<()>(&["CONFIG", "RESETSTAT"]).await;
    let ignored = ["info", "config|resetstat", "ping", "hello"];
    statistics
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            (!ignored.contains(&name)).then(|| (name.to_owned(), calls))
        })
        .collect()
}

/// What each call costs: a claim that finds nothing, the question whether there is something, and,
/// with messages to claim, publishing another, the claim, its end, a retry, and its end.
async fn costs(
    client: &Client,
    engine: &RedisEngine,
    key: &GroupKey,
) -> Vec<BTreeMap<String, u64>> {
    let mut costs = Vec::new();
    let retention = Retention::default().with_max_len(1_000_000);
    commands(client).await;
    engine
        .claim(&consumer(key), 100, NEVER.into())
        .await
        .unwrap();
    costs.push(commands(client).await);
    engine.ready(Arc::from([key.clone()])).await.unwrap();
    costs.push(commands(client).await);
    let appending = engine.append(&key.stream, numbered(100), Some(retention));
    appending.await.unwrap();
    costs.push(commands(client).await);
    let retry = Outcome::Retry {
        delay: Duration::ZERO,
        error: None,
    };
    for outcome in [retry, Outcome::Acknowledged] {
        let claimed = engine
            .claim(&consumer(key), 100, NEVER.into())
            .await
            .unwrap();
        assert_eq!(claimed.messages.len(), 100);
        costs.push(commands(client).await);
        let settlements = claimed.messages.iter().map(|it| Settlement {
            receipt: it.receipt,
            outcome: outcome.clone(),
        });
        engine.settle(key, settlements.collect()).await.unwrap();
        costs.push(commands(client).await);
    }
    costs
}

#[tokio::test]
async fn regression_a_long_history_costs_as_much_as_a_short_one() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "cost").await;
    let client = Client::connect(&server.url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    // The first round also stores the retention.
    costs(&client, &engine, &key).await;
    let short = costs(&client, &engine, &key).await;
    for _ in 0..200 {
        let appending = engine.append(
            &key.stream,
            numbered(1000),
            Some(Retention::default().with_max_len(1_000_000)),
        );
        appending.await.unwrap();
    }
    loop {
        let claimed = engine
            .claim(&consumer(&key), 4096, NEVER.into())
            .await
            .unwrap();
        if claimed.messages.is_empty() {
            break;
        }
        let settlements = claimed.messages.iter().map(|it| Settlement {
            receipt: it.receipt,
            outcome: Outcome::Acknowledged,
        });
        engine.settle(&key, settlements.collect()).await.unwrap();
    }
    let long = costs(&client, &engine, &key).await;
    assert_eq!(short, long);
    // A claim of many messages and its end are as few commands as those of one.
    let [.., again, end] = &*long else { panic!() };
    assert!(end.values().sum::<u64>() < 1000, "{end:?}");
    assert!(again.values().sum::<u64>() < 20, "{again:?}");
    let (claim, settle) = (&long[3], &long[2]);
    assert!(claim.values().sum::<u64>() < 20, "{claim:?}");
    assert!(settle.get("evalsha") == Some(&1), "{settle:?}");
}

/// What has expired and is kept for a group is not gone through with each publish.
#[tokio::test]
async fn regression_what_a_slow_group_keeps_costs_a_publisher_nothing() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "slow").await;
    let client = Client::connect(&server.url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let aged = Retention::default().with_max_age(Duration::from_millis(1));
    let append = async |count| {
        let appending = engine.append(&key.stream, numbered(count), Some(aged));
        appending.await.unwrap();
    };
    append(10).await;
    let mut costs = Vec::new();
    for more in [10, 20_000] {
        append(more).await;
        // It grows older than the limit, by the clock of the server.
        tokio::time::sleep(Duration::from_millis(5)).await;
        commands(&client).await;
        append(1).await;
        costs.push(commands(&client).await);
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(engine.stats(&key.stream).await.unwrap().messages, 20_022);
}

/// A publish that has little to trim does not ask all groups what they need.
#[tokio::test]
async fn regression_many_groups_cost_a_publisher_little() {
    const GROUPS: u64 = 200;
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "groups").await;
    let client = Client::connect(&server.url()).await;
    let thousand = Retention::default().with_max_len(1000);
    let stream = key("s", "g").stream;
    let append = async |count| {
        let appending = engine.append(&stream, numbered(count), Some(thousand));
        appending.await.unwrap();
    };
    append(1000).await;
    for number in 0..GROUPS {
        let group = key("s", &format!("g{number}"));
        engine.open_group(&group, StartFrom::Latest).await.unwrap();
    }
    commands(&client).await;
    for _ in 0..100 {
        append(1).await;
    }
    let total: u64 = commands(&client).await.values().sum();
    assert!(total < GROUPS * 100, "{total}");
    let kept = engine.stats(&stream).await.unwrap().messages;
    assert!((1000..=1010).contains(&kept), "{kept}");
}

/// Processes are notified of a message only if a consumer waits for one, once each time.
#[tokio::test]
async fn regression_messages_that_no_consumer_waits_for_wake_no_process() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "woken").await;
    let client = Client::connect(&server.url()).await;
    let (key, letters) = (key("s", "g"), key("s.dead", "g"));
    for key in [&key, &letters] {
        engine.open_group(key, StartFrom::Earliest).await.unwrap();
    }
    let append = async |count| {
        for _ in 0..count {
            let appending = engine.append(&key.stream, numbered(1), None);
            appending.await.unwrap();
        }
    };
    let claim = async |key, max| {
        engine
            .claim(&consumer(key), max, NEVER.into())
            .await
            .unwrap()
    };
    let settle = async |claimed: &Claimed, outcome: Outcome| {
        let settlements = claimed.messages.iter().map(|it| Settlement {
            receipt: it.receipt,
            outcome: outcome.clone(),
        });
        engine.settle(&key, settlements.collect()).await.unwrap();
    };
    let published = async || commands(&client).await.get("publish").copied().unwrap_or(0);
    append(50).await;
    let claimed = claim(&key, 50).await;
    assert_eq!(claimed.messages.len(), 50);
    append(50).await;
    assert_eq!(
        published().await,
        0,
        "every claim has got what it asked for"
    );
    for _ in 0..3 {
        claim(&key, 1000).await;
        claim(&key, 1000).await;
        append(50).await;
        assert_eq!(published().await, 1);
    }
    // What comes again and dead letters wake in the same way.
    settle(&claimed, Outcome::Released).await;
    assert_eq!(published().await, 0);
    let claimed = claim(&key, 1000).await;
    assert!(claim(&key, 1000).await.messages.is_empty());
    settle(&claimed, Outcome::Released).await;
    assert_eq!(published().await, 1);
    let dead = Outcome::Dead {
        to: letters.stream.clone(),
        provenance: Headers::new(),
    };
    let claimed = claim(&key, 10).await;
    settle(&claimed, dead.clone()).await;
    assert_eq!(published().await, 0);
    assert_eq!(claim(&letters, 1000).await.messages.len(), 10);
    let claimed = claim(&key, 10).await;
    settle(&claimed, dead).await;
    assert_eq!(published().await, 1);
}

/// Counts what consumers ask.
#[derive(Debug, Default)]
struct Asked {
    claims: AtomicU64,
    polls: AtomicU64,
}

#[async_trait]
impl Hook for Asked {
    async fn after(&self, call: &'static str) {
        match call {
            "claim" => self.claims.fetch_add(1, Ordering::SeqCst),
            "ready" => self.polls.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}

/// A hundred subscriptions that wait share one question per interval.
#[tokio::test]
async fn idle_subscriptions_cost_a_question_per_interval() {
    let server = RedisServer::start().await.unwrap();
    let engine = Wrapped::around(open(&server.url(), "idle").await, Asked::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    let client = Client::connect(&server.url()).await;
    let mut consumers = Vec::new();
    for number in 0..100 {
        let options = SubscribeOptions::default();
        let group = format!("g{number}");
        let consumer = streams.subscribe("s", &group, options, |_| async { Ok(()) });
        consumers.push(consumer.await.unwrap());
    }
    // All have found that there is nothing.
    until(async || engine.hook.claims.load(Ordering::SeqCst) >= 100).await;
    let polls = || engine.hook.polls.load(Ordering::SeqCst);
    let after = async |count| until(async || polls() >= count).await;
    // Those that began to wait at different times have found together.
    after(polls() + 4).await;
    let before = polls();
    let begun = Instant::now();
    commands(&client).await;
    after(before + 5).await;
    let commands = commands(&client).await;
    let intervals = begun.elapsed().as_secs() + 1;
    let scripts = commands.get("evalsha").copied().unwrap_or_default();
    // One more may have been under way at the beginning.
    assert!(scripts >= 4, "{commands:?}");
    assert!(
        scripts <= 3 * intervals,
        "{commands:?} in {intervals} seconds"
    );
    streams.close().await;
}
