//! What only the Redis engine promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{Cmd, FromRedisValue, RedisResult, Value, cmd};
use tidings_stream::engine::{ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement};
use tidings_stream::redis::{Config, RedisEngine, RedisOptions};
use tidings_stream::{
    Error, Headers, MessageId, NewMessage, Retention, ServiceConfig, StartFrom, StreamName, Streams,
};
use tidings_test_support::RedisServer;

use crate::database::{NEVER, PATIENT, from_start, key, name, next, numbered, recorder, until};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("REDIS_URL")
        .expect("REDIS_URL names a Redis server; `scripts/services` runs a command with one")
}

/// A prefix that no other test has, nor an earlier run.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test {:016x} {number}", fastrand::u64(..))
}

pub(crate) async fn open(url: &str, prefix: &str) -> RedisEngine {
    let options = RedisOptions::default().with_prefix(prefix);
    let config = Config::new(url).unwrap().with_reply_limit(PATIENT);
    RedisEngine::open(config, options).await.unwrap()
}

/// An engine without streams.
pub(crate) async fn engine() -> RedisEngine {
    open(&url(), &prefix()).await
}

/// A connection of the test's own.
pub(crate) struct Client(MultiplexedConnection);

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let config = Config::new(url).unwrap();
        Self(config.connect(drop).await.unwrap().multiplexed())
    }

    pub(crate) async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let (name, arguments) = command.split_first().unwrap();
        let mut connection = self.0.clone();
        cmd(name)
            .arg(arguments)
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    pub(crate) async fn try_run(&self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.0.clone();
        command.query_async(&mut connection).await
    }
}

pub(crate) fn consumer(key: &GroupKey) -> ConsumerKey {
    ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    }
}

/// Claims up to a number of messages, and returns their ids.
pub(crate) async fn claim(engine: &dyn Engine, key: &GroupKey, max: usize) -> Vec<u64> {
    let claimed = engine
        .claim(&consumer(key), max, NEVER.into())
        .await
        .unwrap();
    let ids = claimed.messages.iter().map(|d| d.message.id.as_u64());
    ids.collect()
}

/// A node of a cluster refuses a script that touches keys of several slots.
#[tokio::test]
async fn every_key_lies_in_the_slot_of_its_engine_and_goes_with_its_stream() {
    let server = RedisServer::start_node().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    client.run::<()>(&slots).await;
    until(async || {
        let info: String = client.run(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok")
    })
    .await;
    let engine = open(&server.url(), "tag").await;
    // Whatever is in a name, and if it looks like another key, its keys are its own.
    let everyone = StreamName::new("{a}", "}{", "x:{b}:log:").unwrap();
    for stream in [name("s"), name("s:g"), name("{}"), everyone] {
        for group in ["g", ":", "{s}", "g:g"] {
            let group = GroupKey {
                group: key("s", group).group,
                stream: stream.clone(),
            };
            leave_every_kind_of_key(&engine, &group).await;
            let keys: Vec<String> = client.run(&["KEYS", "*"]).await;
            assert!(keys.len() >= 14, "{keys:?}");
            assert!(keys.iter().all(|found| found.starts_with("{tag}:")));
            assert!(engine.delete_group(&group).await.unwrap());
            assert!(engine.delete_stream(&stream).await.unwrap());
            assert!(engine.delete_stream(&stream.dead_letter()).await.unwrap());
            // Those of publishing expire.
            let left: Vec<String> = client.run(&["KEYS", "*"]).await;
            let [left] = &*left else { panic!("{left:?}") };
            assert!(left.starts_with("{tag}:key:"));
            client.run::<u64>(&["DEL", left]).await;
        }
    }
}

async fn leave_every_kind_of_key(engine: &RedisEngine, group: &GroupKey) {
    engine.open_group(group, StartFrom::Earliest).await.unwrap();
    let keyed = NewMessage::new(vec![0; 2000]).with_publish_key("{k}", NEVER);
    let mut messages = numbered(3);
    messages.insert(0, keyed);
    let retention = Retention::default().with_max_len(3).with_max_age(NEVER);
    let ids = engine
        .append(&group.stream, messages, Some(retention))
        .await;
    assert_eq!(ids.unwrap()[0].as_u64(), 1);
    let claimed = engine
        .claim(&consumer(group), 10, NEVER.into())
        .await
        .unwrap();
    let claimed: Vec<Receipt> = claimed.messages.iter().map(|d| d.receipt).collect();
    assert_eq!(claimed.len(), 4);
    let ends = [
        Outcome::Retry {
            delay: NEVER,
            error: None,
        },
        Outcome::Acknowledged,
        Outcome::Dead {
            to: group.stream.dead_letter(),
            provenance: Headers::new(),
        },
    ];
    let settlements = claimed
        .iter()
        .zip(ends)
        .map(|(receipt, outcome)| Settlement {
            receipt: *receipt,
            outcome,
        });
    let obeyed = engine.settle(group, settlements.collect()).await;
    assert_eq!(obeyed.unwrap(), [true; 3]);
    let last = Arc::from([claimed[3]]);
    assert_eq!(engine.extend(group, last, NEVER).await.unwrap(), [true]);
    let alive = Arc::from([consumer(group)]);
    engine.check_in(alive, NEVER).await.unwrap();
    assert_eq!(engine.members(group).await.unwrap().len(), 1);
    assert_eq!(engine.pending(group, None, 10).await.unwrap().len(), 2);
    engine.trim().await.unwrap();
    engine.stats(&group.stream).await.unwrap();
    engine.ready(Arc::from([group.clone()])).await.unwrap();
    engine.read(&group.stream, None, 10).await.unwrap();
}

#[tokio::test]
async fn engines_of_different_prefixes_do_not_see_each_other() {
    let (one, other) = (engine().await, engine().await);
    one.append(&name("s"), numbered(1), None).await.unwrap();
    assert_eq!(one.list("").await.unwrap(), [name("s")]);
    assert!(other.list("").await.unwrap().is_empty());
    assert_eq!(other.stats(&name("s")).await.unwrap().messages, 0);
    let options = RedisOptions::default().with_prefix("a}b");
    let refused = RedisEngine::open(Config::new(&url()).unwrap(), options).await;
    assert!(matches!(
        refused.unwrap_err(),
        Error::InvalidOption {
            field: "prefix",
            ..
        }
    ));
}

/// Faults of the reference: members of the same index in two processes settle each other's messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_two_engines_share_a_group_without_touching_each_others_messages() {
    let prefix = prefix();
    let mut seen = Vec::new();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let streams = Streams::new(
            Arc::new(open(&url(), &prefix).await),
            ServiceConfig::default(),
        );
        let (recorder, received) = recorder();
        let options = from_start().with_concurrency(4);
        let consumer = streams
            .subscribe("s", "g", options, recorder)
            .await
            .unwrap();
        consumers.push(consumer);
        seen.push(received);
    }
    let publisher = Streams::new(
        Arc::new(open(&url(), &prefix).await),
        ServiceConfig::default(),
    );
    for _ in 0..500 {
        publisher.publish("s", NewMessage::new("")).await.unwrap();
    }
    until(async || {
        let group = publisher.stats("s").await.unwrap().groups.remove(0);
        (group.lag, group.pending) == (0, 0)
    })
    .await;
    for consumer in &consumers {
        consumer.close().await;
    }
    assert!(consumers.iter().all(|consumer| consumer.stats().stale == 0));
    let mut ids = Vec::new();
    for mut received in seen {
        let mut any = false;
        while let Some(message) = next(&mut received).await {
            ids.push(message.id.as_u64());
            any = true;
        }
        assert!(any, "both work");
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=500));
}

/// The deleted group, and all others, are woken in another process as well.
#[tokio::test]
async fn a_group_that_seeks_is_woken_elsewhere() {
    let prefix = prefix();
    let here = Streams::new(
        Arc::new(open(&url(), &prefix).await),
        ServiceConfig::default(),
    );
    let there = Streams::new(
        Arc::new(open(&url(), &prefix).await),
        ServiceConfig::default(),
    );
    let (recorder, mut seen) = recorder();
    let consumer = here
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    there.publish("s", NewMessage::new("")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut seen).await.unwrap().id.as_u64(), 1);
        until(async || there.stats("s").await.unwrap().groups[0].pending == 0).await;
        there.seek("s", "g", StartFrom::Earliest).await.unwrap();
    }
    consumer.close().await;
}

/// More than a script may hold on its stack, and than one claim takes, comes back whole and in order.
#[tokio::test]
async fn thousands_of_messages_come_again_in_order() {
    const MESSAGES: u64 = 10_000;
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine
        .append(&key.stream, numbered(MESSAGES), None)
        .await
        .unwrap();
    let mut settlements = Vec::new();
    for attempt in 1..=2 {
        let mut ids = Vec::new();
        let mut claims = 0;
        loop {
            let claimed = engine
                .claim(&consumer(&key), usize::MAX, NEVER.into())
                .await;
            let claimed = claimed.unwrap();
            claims += 1;
            for claimed in &claimed.messages {
                assert_eq!(claimed.message.attempt, attempt);
                ids.push(claimed.message.id.as_u64());
                settlements.push(Settlement {
                    receipt: claimed.receipt,
                    outcome: Outcome::Retry {
                        delay: Duration::ZERO,
                        error: Some("again".to_owned()),
                    },
                });
            }
            if claimed.next_due != Some(Duration::ZERO) {
                break;
            }
        }
        assert!(ids.into_iter().eq(1..=MESSAGES));
        assert!(claims <= 4);
        let all = std::mem::take(&mut settlements);
        let obeyed = engine.settle(&key, all.into()).await.unwrap();
        assert!(obeyed.into_iter().all(|obeyed| obeyed));
    }
    let mut pending = Vec::new();
    let mut after = None;
    loop {
        let page = engine.pending(&key, after, 1700).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        pending.extend(page.iter().map(|message| message.id.as_u64()));
    }
    assert!(pending.into_iter().eq(1..=MESSAGES));
}

#[tokio::test]
async fn a_claim_of_thousands_that_expires_comes_again_in_order() {
    const MESSAGES: u64 = 4096;
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine
        .append(&key.stream, numbered(MESSAGES), None)
        .await
        .unwrap();
    let short = Duration::from_millis(10);
    let claimed = engine
        .claim(&consumer(&key), usize::MAX, short.into())
        .await;
    assert_eq!(claimed.unwrap().messages.len() as u64, MESSAGES);
    let mut again = Vec::new();
    until(async || {
        again = claim(&engine, &key, usize::MAX).await;
        !again.is_empty()
    })
    .await;
    assert!(again.into_iter().eq(1..=MESSAGES));
}

/// Payloads bound a claim and a page, those that come again as well.
#[tokio::test]
async fn a_claim_ends_with_the_message_that_makes_it_large() {
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let mut messages = vec![NewMessage::new(vec![1; 3 << 20]); 4];
    messages.insert(1, NewMessage::new("small"));
    for message in messages {
        engine
            .append(&key.stream, vec![message], None)
            .await
            .unwrap();
    }
    for _ in 0..2 {
        let mut claims = Vec::new();
        let mut receipts = Vec::new();
        loop {
            let claimed = engine
                .claim(&consumer(&key), 100, NEVER.into())
                .await
                .unwrap();
            receipts.extend(claimed.messages.iter().map(|it| it.receipt));
            claims.push(claimed.messages.len());
            if claimed.next_due != Some(Duration::ZERO) {
                break;
            }
        }
        assert_eq!(claims.iter().sum::<usize>(), 5);
        assert_eq!(claims[..2], [3, 2]);
        let released = receipts.into_iter().map(|receipt| Settlement {
            receipt,
            outcome: Outcome::Released,
        });
        engine.settle(&key, released.collect()).await.unwrap();
    }
    let page = engine.read(&key.stream, None, 100).await.unwrap();
    assert_eq!(page.len(), 3);
}

/// A claim that was for as many as it could be, and lost one of them, is followed by another at once.
#[tokio::test]
async fn regression_a_claim_that_lost_a_message_is_followed_by_another() {
    let prefix = prefix();
    let engine = open(&url(), &prefix).await;
    let client = Client::connect(&url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    for message in numbered(12) {
        let appending = engine.append(&key.stream, vec![message], None);
        appending.await.unwrap();
    }
    let log = format!("{{{prefix}}}:log:{}", key.stream);
    let found: Vec<(String, Vec<Vec<u8>>)> = client.run(&["XRANGE", &log, "5", "5"]).await;
    let removed: u64 = client.run(&["XDEL", &log, &found[0].0]).await;
    assert_eq!(removed, 1);
    let claimed = engine
        .claim(&consumer(&key), 10, NEVER.into())
        .await
        .unwrap();
    assert_eq!(claimed.messages.len(), 9);
    assert_eq!(claimed.next_due, Some(Duration::ZERO));
}

/// Messages that were removed behind the engine's back are lost, and stop no consumer.
#[tokio::test]
async fn messages_that_were_removed_by_hand_are_counted_as_lost() {
    let prefix = prefix();
    let engine = open(&url(), &prefix).await;
    let client = Client::connect(&url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    for message in numbered(10) {
        engine
            .append(&key.stream, vec![message], None)
            .await
            .unwrap();
    }
    let claimed = engine
        .claim(&consumer(&key), 2, NEVER.into())
        .await
        .unwrap();
    let log = format!("{{{prefix}}}:log:{}", key.stream);
    let removed: u64 = client.run(&["XTRIM", &log, "MINID", "=", "6"]).await;
    assert_eq!(removed, 5);
    let letters = name("letters");
    let ends = [
        Outcome::Released,
        Outcome::Dead {
            to: letters.clone(),
            provenance: Headers::new(),
        },
    ];
    let settlements = claimed.messages.iter().zip(ends);
    let settlements = settlements.map(|(it, outcome)| Settlement {
        receipt: it.receipt,
        outcome,
    });
    engine.settle(&key, settlements.collect()).await.unwrap();
    assert_eq!(engine.stats(&letters).await.unwrap().messages, 0);
    assert_eq!(claim(&engine, &key, 100).await, [6, 7, 8, 9, 10]);
    let group = engine.stats(&key.stream).await.unwrap().groups.remove(0);
    assert_eq!((group.lost_to_trim, group.pending), (5, 5));
    assert!(claim(&engine, &key, 100).await.is_empty());
}

/// The same in the middle. A dead letter is a copy of its message, whatever was removed before that.
#[tokio::test]
async fn regression_holes_are_skipped_and_counted() {
    let prefix = prefix();
    let engine = open(&url(), &prefix).await;
    let client = Client::connect(&url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let appending = engine.append(&key.stream, numbered(40), None);
    appending.await.unwrap();
    let log = format!("{{{prefix}}}:log:{}", key.stream);
    let found: Vec<(String, Vec<Vec<u8>>)> = client.run(&["XRANGE", &log, "17", "17"]).await;
    assert_eq!(found[0].1.len(), 2 * 16, "sixteen messages are an entry");
    client.run::<u64>(&["XDEL", &log, &found[0].0]).await;
    let claimed = engine
        .claim(&consumer(&key), 100, NEVER.into())
        .await
        .unwrap();
    let expected: Vec<String> = (1..=16).chain(33..=40).map(|it| it.to_string()).collect();
    let payloads = claimed.messages.iter().map(|it| &it.message.payload);
    assert!(payloads.eq(&expected));
    let settlements = claimed.messages.iter().map(|it| Settlement {
        receipt: it.receipt,
        outcome: Outcome::Dead {
            to: key.stream.dead_letter(),
            provenance: Headers::new(),
        },
    });
    engine.settle(&key, settlements.collect()).await.unwrap();
    let letters = engine.read(&key.stream.dead_letter(), None, 100).await;
    let letters = letters.unwrap();
    assert!(letters.iter().map(|it| &it.payload).eq(&expected));
    let group = engine.stats(&key.stream).await.unwrap().groups.remove(0);
    assert_eq!((group.lost_to_trim, group.pending, group.lag), (16, 0, 0));
}

/// What is in the headers of a letter survives the server's own reading of them.
#[tokio::test]
async fn a_dead_letter_has_the_headers_of_its_message() {
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let odd = Headers::from([
        ("1".to_owned(), "2".to_owned()),
        (
            String::new(),
            "\0\u{1f600}\u{7f}/\\\"\u{2028}\u{feff}".to_owned(),
        ),
        ("x-dlq-old".to_owned(), "of an earlier death".to_owned()),
    ]);
    let messages = [odd.clone(), Headers::new()]
        .map(|headers| NewMessage::new([0, 255, 13, 10].to_vec()).with_headers(headers));
    engine
        .append(&key.stream, messages.into(), None)
        .await
        .unwrap();
    let claimed = engine
        .claim(&consumer(&key), 2, NEVER.into())
        .await
        .unwrap();
    let death = Headers::from([("x-dlq-\0".to_owned(), "\u{1f480}".to_owned())]);
    let settlements = claimed.messages.iter().zip([death, Headers::new()]);
    let settlements = settlements.map(|(it, provenance)| Settlement {
        receipt: it.receipt,
        outcome: Outcome::Dead {
            to: key.stream.dead_letter(),
            provenance,
        },
    });
    engine.settle(&key, settlements.collect()).await.unwrap();
    let letters = engine.read(&key.stream.dead_letter(), None, 10).await;
    let letters = letters.unwrap();
    let mut expected = odd;
    expected.remove("x-dlq-old");
    expected.insert("x-dlq-\0".to_owned(), "\u{1f480}".to_owned());
    assert_eq!(letters[0].headers, expected);
    assert_eq!(letters[1].headers, Headers::new());
    for letter in letters {
        assert_eq!(*letter.payload, [0, 255, 13, 10]);
    }
}

/// A number that no message and no claim can have is no receipt, and nothing that a script would count
/// up to.
#[tokio::test]
async fn receipts_that_were_never_given_are_stale() {
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine.append(&key.stream, numbered(1), None).await.unwrap();
    let claimed = engine
        .claim(&consumer(&key), 1, NEVER.into())
        .await
        .unwrap();
    let real = claimed.messages[0].receipt;
    let mut receipts = vec![real];
    for (id, claim) in [
        (u64::MAX, real.claim),
        (1, u64::MAX),
        (0, 0),
        (u64::MAX, 0),
        (2, real.claim),
    ] {
        let id = MessageId::from_u64(id);
        receipts.push(Receipt { id, claim });
    }
    let expected = [true, false, false, false, false, false];
    let extended = engine.extend(&key, receipts.clone().into(), NEVER).await;
    assert_eq!(extended.unwrap(), expected);
    let settlements = receipts.into_iter().map(|receipt| Settlement {
        receipt,
        outcome: Outcome::Acknowledged,
    });
    let settled = engine.settle(&key, settlements.collect()).await;
    assert_eq!(settled.unwrap(), expected);
}

#[tokio::test]
async fn a_batch_that_would_block_all_clients_is_refused() {
    let streams = Streams::new(Arc::new(engine().await), ServiceConfig::default());
    let refused = streams.publish_batch("s", numbered(100_001)).await;
    assert!(matches!(
        refused.unwrap_err(),
        Error::InvalidOption { field: "batch", .. }
    ));
    let piece = NewMessage::new(vec![0; tidings_stream::MAX_PAYLOAD_BYTES]);
    let refused = streams.publish_batch("s", vec![piece; 17]).await;
    assert!(matches!(
        refused.unwrap_err(),
        Error::TooLarge { field: "batch", .. }
    ));
    assert!(streams.list().await.unwrap().is_empty());
    let ids = streams.publish_batch("s", numbered(100_000)).await.unwrap();
    assert_eq!(ids.last().unwrap().as_u64(), 100_000);
}

#[tokio::test]
async fn a_closed_engine_says_so() {
    let engine = engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine.close().await;
    engine.close().await;
    let published = engine.append(&key.stream, numbered(1), None);
    assert!(matches!(published.await.unwrap_err(), Error::Closed));
    let claimed = engine.claim(&consumer(&key), 1, NEVER.into()).await;
    assert!(matches!(claimed.unwrap_err(), Error::Closed));
}
