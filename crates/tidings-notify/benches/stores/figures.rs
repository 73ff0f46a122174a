//! What is measured on every engine.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use stats_alloc::Region;
use tidings_notify::{
    Draft, EventType, Item, Notifier, Payload, Since, Store, Subscription, UserId,
};
use tokio::time::Instant;

use crate::raw::Raw;

const ROUNDS: usize = 5;
const BATCH: usize = 100;
const USERS: usize = 10_000;

pub(crate) fn user(number: usize) -> UserId {
    UserId::new(format!("user-{number}")).unwrap()
}

pub(crate) fn draft(user: UserId) -> Draft {
    // 256 bytes of JSON.
    let payload = Payload::parse(&format!("\"{}\"", "x".repeat(254))).unwrap();
    Draft::new(user, EventType::new("bench.event").unwrap(), payload)
}

fn drafts(users: usize, events: usize) -> Vec<Draft> {
    (0..events).map(|it| draft(user(it % users))).collect()
}

/// A notifier whose sweep does not disturb.
fn notifier(store: &Arc<dyn Store>) -> Notifier {
    let notifier = Notifier::builder(store.clone());
    notifier.with_poll_interval(Duration::from_secs(60)).build()
}

/// Events per second beside the engine alone, a call at a time and 8 calls at a time.
pub(crate) async fn append(store: &Arc<dyn Store>, alone: &impl Raw, batches: usize) {
    for (what, users) in [("one user", 1), ("100 users", 100)] {
        for at_a_time in [1, 8] {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let input = || (0..batches).map(|_| drafts(users, BATCH)).collect();
                let raw = rate(input(), at_a_time, async |batch| {
                    assert_eq!(alone.append(batch).await, BATCH);
                });
                let raw = raw.await;
                let ours = rate(input(), at_a_time, async |batch| {
                    assert_eq!(store.append(batch).await.unwrap().len(), BATCH);
                });
                let ours = ours.await;
                rounds.push((raw, ours, ours / raw));
            }
            let what = format!("events/s by {BATCH} to {what}, {at_a_time} calls at a time");
            print_ratio(&what, rounds);
        }
    }
}

/// Events per second. What is appended is there before.
async fn rate(batches: Vec<Vec<Draft>>, at_a_time: usize, call: impl AsyncFn(Vec<Draft>)) -> f64 {
    let events = (batches.len() * BATCH) as f64;
    let batches = RefCell::new(batches);
    let next = || batches.borrow_mut().pop();
    let started = Instant::now();
    join_all((0..at_a_time).map(|_| async {
        while let Some(batch) = next() {
            call(batch).await;
        }
    }))
    .await;
    events / started.elapsed().as_secs_f64()
}

fn print_ratio(what: &str, mut rounds: Vec<(f64, f64, f64)>) {
    rounds.sort_by(|one, other| one.2.total_cmp(&other.2));
    let (raw, ours, ratio) = rounds[rounds.len() / 2];
    println!("  {what:<52}{raw:>12.0}{ours:>12.0}    {ratio:.2}");
}

async fn streams(notifier: &Notifier, count: usize) -> Vec<Subscription> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        streams.push(notifier.subscribe(user(number), Since::Now).await.unwrap());
    }
    streams
}

async fn next_event(stream: &mut Subscription) {
    while !matches!(stream.next().await.unwrap(), Item::Event(_)) {}
}

/// Microseconds from a push to its arrival at a stream, while so many streams of other users wait.
pub(crate) async fn latency(store: &Arc<dyn Store>) {
    const PUSHES: usize = 300;
    for count in [1, 1000, 10_000] {
        let notifier = notifier(store);
        let mut measured = notifier.subscribe(user(0), Since::Now).await.unwrap();
        let mut waiting = Vec::new();
        for mut stream in streams(&notifier, count).await.split_off(1) {
            waiting.push(tokio::spawn(
                async move { while stream.next().await.is_ok() {} },
            ));
        }
        let mut times = Vec::with_capacity(PUSHES);
        for _ in 0..PUSHES {
            let started = Instant::now();
            notifier.push(draft(user(0))).await.unwrap();
            next_event(&mut measured).await;
            times.push(started.elapsed());
        }
        times.sort();
        let [half, tail] = [PUSHES / 2, PUSHES * 99 / 100].map(|at| times[at].as_secs_f64() * 1e6);
        println!(
            "  µs from push to receive, {count:>6} streams        p50 {half:>8.0}   p99 {tail:>8.0}"
        );
        notifier.close().await.unwrap();
        join_all(waiting).await;
    }
}

/// Pushes per second to a user without streams, while no other user has streams, and 10,000 have.
pub(crate) async fn others(store: &Arc<dyn Store>) {
    const PUSHES: usize = 200;
    let notifier = notifier(store);
    let pushes = async || {
        let started = Instant::now();
        for _ in 0..PUSHES {
            notifier.push(draft(user(USERS))).await.unwrap();
        }
        PUSHES as f64 / started.elapsed().as_secs_f64()
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let without = pushes().await;
        let streams = streams(&notifier, USERS).await;
        let with = pushes().await;
        drop(streams);
        rounds.push((without, with, with / without));
    }
    print_ratio("pushes/s without and with streams of 10,000 others", rounds);
    notifier.close().await.unwrap();
}

/// One push to 10,000 users beside one call of the engine.
pub(crate) async fn many(store: &Arc<dyn Store>, alone: &impl Raw) {
    let notifier = notifier(store);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (batch, users) = (drafts(USERS, USERS), (0..USERS).map(user));
        let (users, draft) = (users.collect::<Vec<_>>(), draft(user(0)));
        let started = Instant::now();
        assert_eq!(alone.append(batch).await, USERS);
        let raw = USERS as f64 / started.elapsed().as_secs_f64();
        let started = Instant::now();
        let pushed = notifier.push_multi(users, draft);
        assert_eq!(pushed.await.unwrap().len(), USERS);
        let ours = USERS as f64 / started.elapsed().as_secs_f64();
        rounds.push((raw, ours, ours / raw));
    }
    print_ratio("events/s, one push to 10,000 users", rounds);
    notifier.close().await.unwrap();
}

/// Bytes that an idle stream keeps allocated, each of a user of its own.
pub(crate) async fn memory_per_stream(store: &Arc<dyn Store>) {
    let notifier = notifier(store);
    let region = Region::new(crate::ALLOCATOR);
    let mut streams = streams(&notifier, USERS).await;
    // Caught up, and registered for a wake-up.
    for stream in &mut streams {
        assert!(matches!(stream.next().await, Ok(Item::CaughtUp { .. })));
        let nothing = std::pin::pin!(stream.next());
        assert!(futures_util::FutureExt::now_or_never(nothing).is_none());
    }
    let stats = region.change();
    let kept = stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated);
    println!(
        "  bytes for each of {USERS} idle streams              {:>8}",
        kept / USERS
    );
    drop(streams);
    notifier.close().await.unwrap();
}
