//! What is particular to presence on Redis.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_notify::presence::WatchItem::{Lagged, Offline, Online};
use tidings_notify::presence::redis::{Config, RedisOptions, RedisPresence};
use tidings_notify::presence::{Lease, LeaseId, Standing, Tracker, TrackerOptions, Update};
use tidings_notify::{Presence, UserId};
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{FromRedisValue, cmd, pipe};
use tidings_test_support::RedisServer;
use tokio::time::Instant;

use super::{quick, soon, until_located, until_online, until_reported};
use crate::database::PATIENT;
use crate::redis::{prefix, url};
use crate::support::{ann, place, user};

pub(super) async fn open(url: &str, prefix: &str) -> Arc<dyn Presence> {
    let options = RedisOptions::default().with_prefix(prefix);
    open_with(url, PATIENT, options).await
}

/// A presence that gives a silent server up after five seconds.
pub(super) async fn impatient(url: &str) -> Arc<dyn Presence> {
    open_with(url, Duration::from_secs(5), RedisOptions::default()).await
}

async fn open_with(url: &str, limit: Duration, options: RedisOptions) -> Arc<dyn Presence> {
    let config = Config::new(url).unwrap().with_reply_limit(limit);
    Arc::new(RedisPresence::open(config, options).await.unwrap())
}

/// Two handles of an empty presence.
pub(super) async fn fresh() -> ([Arc<dyn Presence>; 2], ()) {
    let prefix = prefix();
    let handles = [open(&url(), &prefix).await, open(&url(), &prefix).await];
    (handles, ())
}

/// A connection of the test's own.
pub(super) struct Client(MultiplexedConnection);

impl Client {
    pub(super) async fn connect(url: &str) -> Self {
        let config = Config::new(url).unwrap();
        Self(config.connect(drop).await.unwrap().multiplexed())
    }

    pub(super) async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let (name, arguments) = command.split_first().unwrap();
        let mut connection = self.0.clone();
        cmd(name)
            .arg(arguments)
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    /// What is in each key.
    async fn copy(&self) -> BTreeMap<String, Vec<u8>> {
        let mut copy = BTreeMap::new();
        for key in self.run::<Vec<String>>(&["KEYS", "*"]).await {
            let content: Vec<u8> = self.run(&["DUMP", &key]).await;
            copy.insert(key, content);
        }
        copy
    }

    /// Puts everything back.
    async fn restore(&self, copy: BTreeMap<String, Vec<u8>>) {
        let mut restore = pipe();
        restore.atomic().cmd("FLUSHALL");
        for (key, content) in copy {
            restore.cmd("RESTORE").arg(key).arg(0).arg(content);
        }
        let mut connection = self.0.clone();
        restore.exec_async(&mut connection).await.unwrap();
    }
}

/// A node of a cluster refuses a script that touches keys of several slots.
#[tokio::test]
async fn every_key_lies_in_one_slot_and_expires() {
    let (server, _only) = crate::redis::node().await;
    let client = Client::connect(&server.url()).await;
    let presence = open(&server.url(), "tag").await;
    let tracker = quick(&presence, "{one}");
    for name in ["ann", "{a}", "}{", ":lease"] {
        let mut connection = tracker.register(user(name)).unwrap();
        connection.stored().await.unwrap();
        assert!(presence.is_online(&user(name)).await.unwrap());
        connection.unregister().await.unwrap();
    }
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    let keys: Vec<String> = client.run(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in &keys {
        assert!(key.starts_with("{tag}:"), "{key}");
        let left: i64 = client.run(&["PTTL", key]).await;
        assert!(left > 86_000_000, "{key}: {left}");
    }
    // Nothing is left of an instance that has closed, after the next question.
    tracker.close().await.unwrap();
    let mark = presence.transitions(None, 1).await.unwrap();
    assert!(!mark.has_more);
    let keys: Vec<String> = client.run(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

/// The server counts whole milliseconds. A lease begins anywhere in one of them.
#[tokio::test]
async fn regression_no_lease_ends_a_part_of_a_millisecond_early() {
    let ([writer, reader], ()) = fresh().await;
    let ttl = Duration::from_millis(5);
    for _ in 0..50 {
        let id = LeaseId::random().unwrap();
        let routing = place("short");
        let lease = Lease { id, routing, ttl };
        let update = Update {
            confirmed: 0,
            version: 1,
            came: vec![ann()],
            left: Vec::new(),
        };
        let begun = Instant::now();
        let standing = writer.update(&lease, &update).await.unwrap();
        assert_eq!(standing, Standing::Kept);
        while reader.is_online(&ann()).await.unwrap() {}
        let lasted = begun.elapsed();
        assert!(lasted >= ttl, "it ended after {lasted:?}");
    }
}

#[tokio::test]
async fn a_heartbeat_is_one_command_for_all_connections() {
    let server = RedisServer::start().await.unwrap();
    let presence = open(&server.url(), "cost").await;
    let tracker = quick(&presence, "one");
    let connections: Vec<_> = (0..10_000)
        .map(|n| tracker.register(user(&format!("user-{n}"))).unwrap())
        .collect();
    for connection in &connections {
        connection.stored().await.unwrap();
    }
    let client = Client::connect(&server.url()).await;
    client.run::<()>(&["CONFIG", "RESETSTAT"]).await;
    let statistics = soon(async {
        loop {
            let statistics: String = client.run(&["INFO", "commandstats"]).await;
            if statistics.contains("cmdstat_evalsha:") {
                return statistics;
            }
        }
    })
    .await;
    let calls = |name: &str| {
        let line = format!("cmdstat_{name}:calls=");
        let rest = statistics.lines().find_map(|it| it.strip_prefix(&line));
        let calls = rest.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    assert_eq!(calls("evalsha"), 1);
    let inside: u64 = [
        "hmget",
        "hget",
        "zscore",
        "scard",
        "zadd",
        "pexpireat",
        "zrange",
    ]
    .iter()
    .map(|name| calls(name))
    .sum();
    assert!((8..=14).contains(&inside), "{statistics}");
    assert_eq!(calls("smembers") + calls("sismember") + calls("keys"), 0);
    tracker.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_scripts_is_taught_again() {
    let server = RedisServer::start().await.unwrap();
    let presence = open(&server.url(), "scripts").await;
    let client = Client::connect(&server.url()).await;
    let tracker = quick(&presence, "one");
    for name in ["ann", "bob"] {
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        let connection = tracker.register(user(name)).unwrap();
        connection.stored().await.unwrap();
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        assert!(presence.is_online(&user(name)).await.unwrap());
    }
}

#[tokio::test]
async fn every_key_may_be_lost() {
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let (here, there) = (
        open(&server.url(), "p").await,
        open(&server.url(), "p").await,
    );
    let (one, two) = (quick(&here, "one"), quick(&there, "two"));
    let everyone = ["ann", "bob"].map(user);
    let _ann = one.register(ann()).unwrap();
    let _bob = two.register(user("bob")).unwrap();
    let mut kinds: Vec<&str> = ["lease", "user", "transition", "lease:", "of:", ""].to_vec();
    while let Some(kind) = kinds.pop() {
        until_online(&here, &everyone, &everyone).await;
        let keys: Vec<String> = client.run(&["KEYS", "*"]).await;
        let is_lost = |key: &&String| match kind {
            "" => true,
            prefix if prefix.ends_with(':') => key.starts_with(&format!("{{p}}:{prefix}")),
            whole => **key == format!("{{p}}:{whole}"),
        };
        let lost: Vec<&String> = keys.iter().filter(is_lost).collect();
        assert!(!lost.is_empty(), "{kind}");
        for key in lost {
            client.run::<()>(&["DEL", key]).await;
        }
        until_located(&here, &everyone[0], "one").await;
        until_located(&here, &everyone[1], "two").await;
        // Who comes afterwards is noticed, and so is who leaves.
        let mut watch = one.watch().await.unwrap();
        let mut cid = two.register(user("cid")).unwrap();
        cid.stored().await.unwrap();
        until_reported(&mut watch, &there, Online(user("cid"))).await;
        cid.unregister().await.unwrap();
        until_reported(&mut watch, &there, Offline(user("cid"))).await;
    }
}

/// It refuses the update, and accepts the heartbeat.
#[tokio::test]
async fn regression_a_full_server_keeps_those_online_whom_it_has() {
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let presence = open(&server.url(), "p").await;
    let tracker = quick(&presence, "one");
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    server.fill().unwrap();
    let bob = tracker.register(user("bob")).unwrap();
    assert!(bob.stored().await.is_err());
    let end = async || {
        let leases: Vec<(String, f64)> = client
            .run(&["ZRANGE", "{p}:lease", "0", "-1", "WITHSCORES"])
            .await;
        leases[0].1
    };
    // Twice, so that what was under way does not count.
    for _ in 0..2 {
        let before = end().await;
        soon(async { while end().await <= before {} }).await;
    }
    assert!(presence.is_online(&ann()).await.unwrap());
    server.make_room().unwrap();
    let everyone = ["ann", "bob"].map(user);
    until_online(&presence, &everyone, &everyone).await;
}

/// A replica that had not got everything was promoted.
#[tokio::test]
async fn a_server_that_was_set_back_is_corrected_and_the_gap_reported() {
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let presence = open(&server.url(), "p").await;
    let (one, two) = (quick(&presence, "one"), quick(&presence, "two"));
    let everyone = ["ann", "bob", "cid", "dan"].map(user);
    let ann = one.register(ann()).unwrap();
    let bob = two.register(user("bob")).unwrap();
    ann.stored().await.unwrap();
    bob.stored().await.unwrap();
    let copy = client.copy().await;

    let mut watch = two.watch().await.unwrap();
    drop(ann);
    let _cid = one.register(user("cid")).unwrap();
    until_reported(&mut watch, &presence, Online(user("cid"))).await;
    client.restore(copy).await;
    // As many transitions as were lost.
    let _dan = two.register(user("dan")).unwrap();
    let _eve = two.register(user("eve")).unwrap();
    soon(async { while watch.next().await.unwrap() != Lagged {} }).await;
    let expected: [UserId; 3] = ["bob", "cid", "dan"].map(user);
    until_online(&presence, &everyone, &expected).await;
}

#[tokio::test]
async fn a_watch_reports_what_is_no_longer_kept() {
    let options = RedisOptions::default()
        .with_prefix(prefix())
        .with_kept_transitions(3);
    lag_behind_three(open_with(&url(), PATIENT, options).await).await;
}

/// A store that keeps three transitions has lost two of five.
pub(super) async fn lag_behind_three(presence: Arc<dyn Presence>) {
    let options = TrackerOptions::default();
    let tracker = Tracker::join(presence.clone(), place("one"), options).unwrap();
    let begun = presence.transitions(None, 10).await.unwrap().mark;
    for n in 0..5 {
        let connection = tracker.register(user(&format!("user-{n}"))).unwrap();
        connection.stored().await.unwrap();
        std::mem::forget(connection);
    }
    let page = presence.transitions(Some(begun), 2).await.unwrap();
    assert!(page.is_lossy && page.has_more);
    assert_eq!(page.transitions[0].user, user("user-2"));
    let page = presence.transitions(Some(page.mark), 2).await.unwrap();
    assert!(!page.is_lossy && !page.has_more);
    assert_eq!(page.transitions[0].user, user("user-4"));
}
