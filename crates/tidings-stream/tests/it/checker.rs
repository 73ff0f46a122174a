//! Concurrent histories: several handles and processes publish, consume and operate at the same time, with
//! claims that expire soon, handlers that fail in every way, servers that break and processes that are
//! killed. Whatever happened, the records of both sides must agree afterwards.
//!
//! `TIDINGS_HISTORY_SECONDS=600 scripts/services cargo test -p tidings-stream --all-features checker`
//! runs each history for ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions};
use tidings_stream::redis::{RedisEngine, RedisOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{MemoryEngine, ServiceConfig, Streams};
use tidings_test_support::{Fault, Outage, PostgresOutage, RedisOutage};

use crate::database::{PATIENT, until};
use crate::effects::Effects;

mod children;
mod history;
mod record;

use children::{Children, work_if_child};
use history::History;
use record::{Allowed, Record, verify};

const STREAM: &str = "history";
const GROUPS: [&str; 2] = ["one", "two"];
const MAX_RETRIES: u32 = 3;

/// The group that keeps the order of keys, and how many messages it may have claimed.
const IN_ORDER: usize = 1;
const MAX_IN_FLIGHT: u32 = 10;

/// For how long each history is disturbed.
fn seconds() -> Duration {
    let seconds = std::env::var("TIDINGS_HISTORY_SECONDS");
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().unwrap()))
}

/// Streams of one process.
struct Opened {
    streams: Streams,
    /// Where handlers settle in transactions of their own, on the engines that can.
    effects: Option<Effects>,
}

fn opened(engine: impl Engine, effects: Option<Effects>) -> Opened {
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    Opened { streams, effects }
}

/// Runs a history over several handles, while `disturb` is at work, and holds the records of this process
/// and its children against the store. `observer` is undisturbed.
async fn check(
    handles: Vec<Opened>,
    observer: Opened,
    allowed: Allowed,
    children: Option<&Children>,
    disturb: impl Future<Output = ()>,
) {
    if let Some(effects) = &observer.effects {
        effects.create().await;
    }
    let history = Arc::new(History::new(Record::in_memory(), 0));
    let is_done = AtomicBool::new(false);
    let working = join_all(handles.iter().map(|opened| history.work(opened, &is_done)));
    let ending = async {
        let killing = async {
            match children {
                Some(children) => children.kill_again_and_again().await,
                None => tokio::time::sleep(seconds()).await,
            }
        };
        tokio::join!(disturb, killing);
        // A server that was down for most of the time may have taken little.
        until(async || history.record.accepted() >= 100).await;
        history.is_over.store(true, Ordering::Relaxed);
        // What a process that was killed had sent may arrive late.
        for _ in 0..2 {
            until(async || is_finished(&observer.streams).await).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        until(async || is_finished(&observer.streams).await).await;
        is_done.store(true, Ordering::Relaxed);
    };
    let mut looks = Vec::new();
    let looking = async {
        while !is_done.load(Ordering::Relaxed) {
            let group = GROUPS[IN_ORDER];
            // All at once, or what one page has was settled before the next one.
            if let Ok(pending) = observer.streams.pending(STREAM, group, None, ALL).await {
                looks.push(pending);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(working, ending, looking);
    for handle in &handles {
        handle.streams.close().await;
    }
    let mut events = history.record.events();
    events.extend(children.into_iter().flat_map(Children::events));
    verify(&events, &looks, &observer, allowed).await;
}

/// Whether no group has anything left.
async fn is_finished(observer: &Streams) -> bool {
    // The server may have come back a moment ago.
    let Ok(stats) = observer.stats(STREAM).await else {
        return false;
    };
    stats.groups.len() == GROUPS.len()
        && stats
            .groups
            .iter()
            .all(|group| (group.lag, group.pending) == (0, 0))
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

/// More messages than one look finds pending. Redis reads so many with one script.
const ALL: usize = 500;

const KILLED: Allowed = Allowed {
    same_attempt_twice: false,
    claims_without_handlers: true,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_in_memory_is_consistent() {
    let engine = MemoryEngine::new();
    let handles = [(); 3].map(|()| opened(engine.clone(), None));
    let nothing = async {};
    check(
        handles.into(),
        opened(engine, None),
        Allowed::default(),
        None,
        nothing,
    )
    .await;
}

/// Opens streams at a URL, with a limit for replies; `None` if that fails.
type Open = fn(&str, Duration) -> BoxFuture<'_, Option<Opened>>;

/// How long those wait for a reply that may get none.
const IMPATIENT: Duration = Duration::from_millis(500);

fn open_sqlite(path: &str, _: Duration) -> BoxFuture<'_, Option<Opened>> {
    Box::pin(async move {
        let database = Database::open(path, &Options::default()).ok()?;
        let effects = Effects::Sqlite(database.clone());
        Some(opened(
            SqliteEngine::open(database).await.ok()?,
            Some(effects),
        ))
    })
}

fn open_postgres(url: &str, limit: Duration) -> BoxFuture<'_, Option<Opened>> {
    let config = tidings_stream::postgres::Config::new(url).unwrap();
    let config = config.with_reply_limit(limit);
    Box::pin(async move {
        let engine = PostgresEngine::open(config, PostgresOptions::default()).await;
        Some(opened(
            engine.ok()?,
            Some(Effects::Postgres(url.to_owned())),
        ))
    })
}

fn open_redis(url: &str, limit: Duration) -> BoxFuture<'_, Option<Opened>> {
    let config = tidings_stream::redis::Config::new(url).unwrap();
    let config = config.with_reply_limit(limit);
    Box::pin(async {
        let engine = RedisEngine::open(config, RedisOptions::default()).await;
        Some(opened(engine.ok()?, None))
    })
}

/// Opens streams, however long the server takes, which may be broken at the moment.
async fn open_at_last(open: Open, url: &str, limit: Duration) -> Opened {
    let mut opened = None;
    until(async || {
        opened = open(url, limit).await;
        opened.is_some()
    })
    .await;
    opened.unwrap()
}

/// Two handles at a URL. Each has connections of its own, as if it were a process of its own.
async fn two_handles(open: Open, url: &str) -> Vec<Opened> {
    let one = open_at_last(open, url, IMPATIENT).await;
    vec![one, open_at_last(open, url, IMPATIENT).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_sqlite_is_consistent() {
    work_if_child(open_sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db").display().to_string();
    let observer = open_at_last(open_sqlite, &path, PATIENT).await;
    let handles = two_handles(open_sqlite, &path).await;
    let children = Children::new("checker::a_history_on_sqlite_is_consistent", &path);
    check(handles, observer, KILLED, Some(&children), async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_postgres_is_consistent() {
    work_if_child(open_postgres).await;
    let mut outage = PostgresOutage::start().await.unwrap();
    let url = outage.url().to_owned();
    // The first one makes the tables.
    let observer = open_at_last(open_postgres, &outage.direct_url(), PATIENT).await;
    let handles = two_handles(open_postgres, &url).await;
    let children = Children::new("checker::a_history_on_postgres_is_consistent", &url);
    let disturbing = break_again_and_again(&mut outage, &[Fault::Cut, Fault::Freeze]);
    check(handles, observer, KILLED, Some(&children), disturbing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_a_postgres_that_crashes_is_consistent() {
    let mut outage = PostgresOutage::start().await.unwrap();
    let url = outage.url().to_owned();
    // The first one makes the tables.
    let observer = open_at_last(open_postgres, &outage.direct_url(), PATIENT).await;
    let handles = two_handles(open_postgres, &url).await;
    // A crash may undo the last claims, which need not be on disk.
    let allowed = Allowed {
        same_attempt_twice: true,
        ..Allowed::default()
    };
    let disturbing = break_again_and_again(&mut outage, &[Fault::Kill]);
    check(handles, observer, allowed, None, disturbing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_redis_is_consistent() {
    work_if_child(open_redis).await;
    let mut outage = RedisOutage::start().await.unwrap();
    let url = outage.url().to_owned();
    let observer = open_at_last(open_redis, &outage.direct_url(), PATIENT).await;
    let handles = two_handles(open_redis, &url).await;
    let children = Children::new("checker::a_history_on_redis_is_consistent", &url);
    let faults = [Fault::Cut, Fault::Freeze, Fault::Kill];
    let disturbing = break_again_and_again(&mut outage, &faults);
    check(handles, observer, KILLED, Some(&children), disturbing).await;
}
