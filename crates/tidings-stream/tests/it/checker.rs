//! Concurrent histories: several handles publish, consume and operate at the same time, with claims
//! that expire soon, handlers that fail in every way, and servers that break. Whatever happened, the
//! records of both sides must agree afterwards.
//!
//! `TIDINGS_HISTORY_SECONDS=600 scripts/services cargo test -p tidings-stream --all-features checker`
//! runs each history for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions};
use tidings_stream::redis::{RedisEngine, RedisOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    CloseReport, Error, HandlerError, MemoryEngine, Message, MessageId, NewMessage, RetryDelay,
    ServiceConfig, StartFrom, Streams, SubscribeOptions, dead_letter,
};
use tidings_test_support::{Fault, Outage, PostgresOutage, RedisOutage};

use crate::database::{Schema, until};

const STREAM: &str = "history";
const GROUPS: [&str; 2] = ["one", "two"];
const MAX_RETRIES: u32 = 3;

/// A call of a handler.
#[derive(Debug, Clone)]
struct Call {
    group: usize,
    id: MessageId,
    attempt: u32,
    number: u64,
    succeeded: bool,
}

/// What both sides have done.
#[derive(Debug, Default)]
struct Record {
    next: AtomicU64,
    accepted: Mutex<BTreeMap<u64, Option<MessageId>>>,
    /// Publishes whose outcome is unknown: they may be stored once.
    unknown: Mutex<BTreeSet<u64>>,
    calls: Mutex<Vec<Call>>,
    over: AtomicBool,
}

/// What an engine need not promise in a history.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    /// A crash may undo claims, which are made again with the same attempt.
    same_attempt_twice: bool,
}

fn seconds() -> Duration {
    let seconds = std::env::var("TIDINGS_HISTORY_SECONDS");
    Duration::from_secs(seconds.map_or(4, |seconds| seconds.parse().unwrap()))
}

fn streams(engine: impl Engine) -> Streams {
    Streams::new(Arc::new(engine), ServiceConfig::default())
}

fn options() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_visibility_timeout(Duration::from_millis(400))
        .with_poll_interval(Duration::from_millis(20))
        .with_retry_delay(RetryDelay::fixed(Duration::from_millis(5)))
        .with_max_retries(MAX_RETRIES)
        .with_concurrency(4)
}

impl Record {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A message of a number, and whether it can be published again.
    async fn publish(&self, streams: &Streams) {
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_keyed = number.is_multiple_of(2);
            let message = || {
                let message = NewMessage::new(number.to_string());
                if is_keyed {
                    return message.with_publish_key(number.to_string(), Duration::from_secs(3600));
                }
                message
            };
            let mut published = streams.publish(STREAM, message()).await;
            while is_keyed && published.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                published = streams.publish(STREAM, message()).await;
            }
            match published {
                Ok(id) => {
                    self.accepted.lock().unwrap().insert(number, Some(id));
                }
                Err(error) if error.may_have_been_done() => {
                    self.unknown.lock().unwrap().insert(number);
                }
                Err(error) => assert!(
                    matches!(error, Error::Backend(_) | Error::Full(_)),
                    "{error:?}"
                ),
            }
            tokio::time::sleep(Duration::from_micros(fastrand::u64(..4000))).await;
        }
    }

    /// Handles a message in one of many ways, which its number and attempt decide.
    async fn handle(&self, group: usize, message: Message) -> Result<(), HandlerError> {
        let number: u64 = std::str::from_utf8(&message.payload)?.parse()?;
        let index = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call {
                group,
                id: message.id,
                attempt: message.attempt,
                number,
                succeeded: false,
            });
            calls.len() - 1
        };
        match (number * 31 + u64::from(message.attempt) * 17 + group as u64) % 40 {
            0..3 => return Err(HandlerError::retry("again")),
            3 => return Err(HandlerError::retry_after(Duration::ZERO, "at once")),
            4 => return Err(HandlerError::skip_retry("never")),
            5 => panic!("the handler panics"),
            6 => std::future::pending().await,
            7..10 => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => tokio::task::yield_now().await,
        }
        self.calls.lock().unwrap()[index].succeeded = true;
        Ok(())
    }

    /// Members that come and go, until it is over and nothing is left.
    async fn consume(self: &Arc<Self>, streams: &Streams, group: usize, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            let record = Arc::clone(self);
            let handler = move |message: Message| {
                let record = Arc::clone(&record);
                async move { record.handle(group, message).await }
            };
            let Ok(consumer) = streams
                .subscribe(STREAM, GROUPS[group], options(), handler)
                .await
            else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let stay = Duration::from_millis(fastrand::u64(200..1500));
            tokio::time::sleep(stay).await;
            if fastrand::bool() {
                consumer.pause();
            }
            let _: CloseReport = consumer.close().await;
        }
    }

    /// Everything else that may be called. What it returns is of no interest, and errors are expected
    /// while the server is broken.
    async fn operate(&self, streams: &Streams) {
        let scratch = format!("scratch{}", fastrand::u32(..));
        while !self.is_over() {
            match fastrand::u32(..9) {
                0 => drop(streams.stats(STREAM).await),
                1 => drop(streams.pending(STREAM, GROUPS[0], None, 100).await),
                2 => drop(streams.members(STREAM, GROUPS[1]).await),
                3 => drop(streams.list().await),
                4 => drop(streams.read(STREAM, None, 100).await),
                5 => drop(streams.trim().await),
                6 => drop(streams.publish(&scratch, NewMessage::new("scratch")).await),
                7 => drop(streams.delete_stream(&scratch).await),
                _ => drop(streams.seek(&scratch, "g", StartFrom::Earliest).await),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
        }
    }
}

/// Runs a history over several handles, while `disturb` is at work, and holds the records against each
/// other. `observer` is undisturbed.
async fn check(
    handles: Vec<Streams>,
    observer: Streams,
    allowed: Allowed,
    disturb: impl Future<Output = ()>,
) {
    let record = Arc::new(Record::default());
    let done = AtomicBool::new(false);
    let publishing = join_all(handles.iter().map(|streams| record.publish(streams)));
    let consuming = join_all(handles.iter().flat_map(|streams| {
        let (record, done) = (&record, &done);
        (0..GROUPS.len()).map(move |group| record.consume(streams, group, done))
    }));
    let operating = join_all(handles.iter().map(|streams| record.operate(streams)));
    let ending = async {
        disturb.await;
        // A server that was down for most of the time may have taken little.
        until(async || record.accepted.lock().unwrap().len() >= 100).await;
        record.over.store(true, Ordering::Relaxed);
        until(async || {
            // The server may have come back a moment ago.
            let Ok(stats) = observer.stats(STREAM).await else {
                return false;
            };
            stats.groups.len() == GROUPS.len()
                && stats
                    .groups
                    .iter()
                    .all(|group| (group.lag, group.pending) == (0, 0))
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(publishing, consuming, operating, ending);
    for handle in &handles {
        handle.close().await;
    }
    record.verify(&observer, allowed).await;
}

async fn read_all(streams: &Streams, stream: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map(|message| message.id);
        let page = streams.read(stream, after, 1000).await.unwrap();
        if page.is_empty() {
            return messages;
        }
        messages.extend(page);
    }
}

impl Record {
    async fn verify(&self, observer: &Streams, allowed: Allowed) {
        let stored = read_all(observer, STREAM).await;
        let number = |message: &Message| -> u64 {
            std::str::from_utf8(&message.payload)
                .unwrap()
                .parse()
                .unwrap()
        };
        // What was accepted is stored once, under the id that was returned; nothing else is stored but
        // publishes of unknown outcome.
        let by_id: BTreeMap<MessageId, u64> = stored.iter().map(|m| (m.id, number(m))).collect();
        assert_eq!(by_id.len(), stored.len());
        assert!(
            (1..=stored.len() as u64).eq(by_id.keys().map(|id| id.as_u64())),
            "ids are dense"
        );
        let numbers: BTreeSet<u64> = by_id.values().copied().collect();
        assert_eq!(numbers.len(), stored.len(), "stored once each");
        let accepted = self.accepted.lock().unwrap().clone();
        let unknown = self.unknown.lock().unwrap().clone();
        for (number, id) in &accepted {
            let id = id.expect("an id was returned");
            assert_eq!(by_id.get(&id), Some(number), "{id} was accepted");
        }
        let stray: Vec<_> = numbers
            .iter()
            .filter(|number| !accepted.contains_key(number) && !unknown.contains(number))
            .collect();
        assert!(
            stray.is_empty(),
            "stored although it was refused: {stray:?}"
        );

        let calls = self.calls.lock().unwrap().clone();
        let letters = read_all(observer, &format!("{STREAM}.dead")).await;
        let stats = observer.stats(STREAM).await.unwrap();
        for (index, group) in GROUPS.iter().enumerate() {
            let own: Vec<&Call> = calls.iter().filter(|call| call.group == index).collect();
            let mut dead = BTreeMap::new();
            for letter in letters
                .iter()
                .filter(|it| it.headers[dead_letter::GROUP] == *group)
            {
                let id: MessageId = letter.headers[dead_letter::ID].parse().unwrap();
                assert_eq!(by_id.get(&id), Some(&number(letter)), "the letter of {id}");
                assert!(
                    dead.insert(id, letter).is_none(),
                    "{id} died twice in {group}"
                );
            }
            let mut attempts: BTreeMap<MessageId, Vec<u32>> = BTreeMap::new();
            let mut succeeded = BTreeSet::new();
            for call in &own {
                assert_eq!(by_id.get(&call.id), Some(&call.number));
                assert!(call.attempt <= MAX_RETRIES + 1, "{call:?}");
                attempts.entry(call.id).or_default().push(call.attempt);
                if call.succeeded {
                    succeeded.insert(call.id);
                }
            }
            for (id, attempts) in &mut attempts {
                attempts.sort_unstable();
                let distinct: BTreeSet<u32> = attempts.iter().copied().collect();
                let is_unique = distinct.len() == attempts.len();
                assert!(
                    is_unique || allowed.same_attempt_twice,
                    "{id}: {attempts:?}"
                );
            }
            for id in by_id.keys() {
                let is_dead = dead.contains_key(id);
                assert!(succeeded.contains(id) || is_dead, "{id} is lost to {group}");
                assert!(
                    attempts.contains_key(id),
                    "{id} died without a handler in {group}"
                );
            }
            // Dead letters say how many attempts there were.
            for (id, letter) in &dead {
                let said: u32 = letter.headers[dead_letter::ATTEMPTS].parse().unwrap();
                let last = attempts[id].last().copied().unwrap_or(0);
                assert!(
                    said >= last && said <= MAX_RETRIES + 1,
                    "{id}: {said}, {:?}",
                    attempts[id]
                );
            }
            let figures = stats
                .groups
                .iter()
                .find(|it| it.name.as_str() == *group)
                .unwrap();
            assert_eq!(figures.dead_lettered, dead.len() as u64);
            assert_eq!((figures.lost_to_trim, figures.lag_time), (0, None));
        }
    }
}

/// Breaks a server in turn, and lets it work in between.
async fn break_again_and_again(outage: &mut dyn Outage, faults: &[Fault]) {
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < seconds() {
        for fault in faults {
            tokio::time::sleep(Duration::from_millis(300)).await;
            outage.begin(*fault).await.unwrap();
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..700))).await;
            outage.restore().await.unwrap();
        }
    }
}

const STRICT: Allowed = Allowed {
    same_attempt_twice: false,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_in_memory_is_consistent() {
    let engine = MemoryEngine::new();
    let handles = [(); 3].map(|()| streams(engine.clone()));
    let waiting = tokio::time::sleep(seconds());
    check(handles.into(), streams(engine), STRICT, waiting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_sqlite_is_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let database = Database::open(folder.path().join("test.db"), &Options::default());
        streams(SqliteEngine::open(database.unwrap()).await.unwrap())
    };
    // Each has a connection of its own, as if it were a process of its own.
    let handles = vec![open().await, open().await];
    check(handles, open().await, STRICT, tokio::time::sleep(seconds())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_postgres_is_consistent() {
    let mut outage = PostgresOutage::start().await.unwrap();
    let schema = Schema::create_on(&outage.direct_url()).await;
    let open = async |url: &str| {
        let config = tidings_stream::postgres::Config::new(&schema.url_at(url)).unwrap();
        let config = config.with_answer_limit(Duration::from_millis(500));
        streams(
            PostgresEngine::open(config, PostgresOptions::default())
                .await
                .unwrap(),
        )
    };
    let url = outage.url().to_owned();
    let handles = vec![open(&url).await, open(&url).await];
    let observer = open(&outage.direct_url()).await;
    let disturbing = break_again_and_again(&mut outage, &[Fault::Cut, Fault::Freeze]);
    check(handles, observer, STRICT, disturbing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_a_postgres_that_crashes_is_consistent() {
    let mut outage = PostgresOutage::start().await.unwrap();
    let schema = Schema::create_on(&outage.direct_url()).await;
    let open = async |url: &str| {
        let config = tidings_stream::postgres::Config::new(&schema.url_at(url)).unwrap();
        streams(
            PostgresEngine::open(config, PostgresOptions::default())
                .await
                .unwrap(),
        )
    };
    let url = outage.url().to_owned();
    let handles = vec![open(&url).await, open(&url).await];
    let observer = open(&outage.direct_url()).await;
    // A crash may undo the last claims, which need not be on disk.
    let allowed = Allowed {
        same_attempt_twice: true,
    };
    let disturbing = break_again_and_again(&mut outage, &[Fault::Kill]);
    check(handles, observer, allowed, disturbing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_redis_is_consistent() {
    let mut outage = RedisOutage::start().await.unwrap();
    let open = async |url: &str| {
        let config = tidings_stream::redis::Config::new(url).unwrap();
        let config = config.with_answer_limit(Duration::from_millis(500));
        streams(
            RedisEngine::open(config, RedisOptions::default())
                .await
                .unwrap(),
        )
    };
    let url = outage.url().to_owned();
    let handles = vec![open(&url).await, open(&url).await];
    let observer = open(&outage.direct_url()).await;
    let faults = [Fault::Cut, Fault::Freeze, Fault::Kill];
    let disturbing = break_again_and_again(&mut outage, &faults);
    check(handles, observer, STRICT, disturbing).await;
}
