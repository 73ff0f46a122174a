//! What is measured on every engine.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use stats_alloc::Region;
use tidings_bench::{Latencies, Rate, Row, number};
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
    notifier
        .poll_interval(Duration::from_secs(60))
        .build()
        .unwrap()
}

/// Events per second beside the engine alone, a call at a time and 8 calls at a time.
pub(crate) async fn append(name: &str, store: &Arc<dyn Store>, alone: &impl Raw, batches: usize) {
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
                rounds.push((raw, ours));
            }
            let what = format!("{name}, append by {BATCH} to {what}, {at_a_time} calls at a time");
            emit(&what, "events/s", "the engine alone", rounds);
        }
    }
}

/// Events per second, with the time of a call. What is appended is there before.
async fn rate(batches: Vec<Vec<Draft>>, at_a_time: usize, call: impl AsyncFn(Vec<Draft>)) -> Rate {
    let events = batches.len() * BATCH;
    let batches = RefCell::new(batches);
    let next = || batches.borrow_mut().pop();
    let started = Instant::now();
    let calls = join_all((0..at_a_time).map(|_| async {
        let mut latencies = Latencies::default();
        while let Some(batch) = next() {
            let began = Instant::now();
            call(batch).await;
            latencies.add(began.elapsed());
        }
        latencies
    }))
    .await;
    let latencies = calls.into_iter().flatten().collect();
    Rate::new(events, started.elapsed(), &latencies)
}

/// The round in the middle by its ratio.
fn emit(what: &str, unit: &str, beside: &str, mut rounds: Vec<(Rate, Rate)>) {
    let ratio = |(raw, ours): &(Rate, Rate)| ours.per_second / raw.per_second;
    rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let (raw, ours) = rounds[rounds.len() / 2];
    Row::rate(what, unit, ours).beside(beside, raw).emit();
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

/// The time from a push to its arrival at a stream, while so many streams of other users wait.
pub(crate) async fn latency(name: &str, store: &Arc<dyn Store>) {
    const PUSHES: usize = 300;
    let mut alone = None;
    for count in [1, 1000, 10_000] {
        let notifier = notifier(store);
        let mut measured = notifier.subscribe(user(0), Since::Now).await.unwrap();
        let mut waiting = Vec::new();
        for mut stream in streams(&notifier, count).await.split_off(1) {
            waiting.push(tokio::spawn(
                async move { while stream.next().await.is_ok() {} },
            ));
        }
        let mut times = Latencies::default();
        for _ in 0..PUSHES {
            let started = Instant::now();
            notifier.push(draft(user(0))).await.unwrap();
            next_event(&mut measured).await;
            times.add(started.elapsed());
        }
        let alone = alone.get_or_insert_with(|| times.clone());
        if count > 1 {
            Row::time(&format!("{name}, push to receive, {count} streams"), &times)
                .beside("1 stream", &*alone)
                .emit();
        }
        notifier.close().await.unwrap();
        join_all(waiting).await;
    }
}

/// Pushes per second to a user without streams, while no other user has streams, and 10,000 have.
pub(crate) async fn others(name: &str, store: &Arc<dyn Store>) {
    const PUSHES: usize = 200;
    let notifier = notifier(store);
    let pushes = async || {
        let (started, mut latencies) = (Instant::now(), Latencies::default());
        for _ in 0..PUSHES {
            let began = Instant::now();
            notifier.push(draft(user(USERS))).await.unwrap();
            latencies.add(began.elapsed());
        }
        Rate::new(PUSHES, started.elapsed(), &latencies)
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let without = pushes().await;
        let streams = streams(&notifier, USERS).await;
        let with = pushes().await;
        drop(streams);
        rounds.push((without, with));
    }
    let what = format!("{name}, push to a user, streams of 10,000 others");
    emit(&what, "pushes/s", "no streams", rounds);
    notifier.close().await.unwrap();
}

/// One push to 10,000 users beside one call of the engine.
pub(crate) async fn many(name: &str, store: &Arc<dyn Store>, alone: &impl Raw) {
    let notifier = notifier(store);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (batch, users) = (drafts(USERS, USERS), (0..USERS).map(user));
        let (users, draft) = (users.collect::<Vec<_>>(), draft(user(0)));
        let once = |started: Instant| {
            Rate::new(
                USERS,
                started.elapsed(),
                &Latencies::from_iter([started.elapsed()]),
            )
        };
        let started = Instant::now();
        assert_eq!(alone.append(batch).await, USERS);
        let raw = once(started);
        let started = Instant::now();
        let pushed = notifier.push_multi(users, draft);
        assert_eq!(pushed.await.unwrap().len(), USERS);
        rounds.push((raw, once(started)));
    }
    let what = format!("{name}, one push to 10,000 users");
    emit(&what, "events/s", "the engine alone", rounds);
    notifier.close().await.unwrap();
}

/// Bytes that an idle stream keeps allocated, each of a user of its own.
pub(crate) async fn memory_per_stream(name: &str, store: &Arc<dyn Store>) {
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
    let what = format!("{name}, memory of each of {USERS} idle streams");
    Row::cost(&what, "bytes", number(kept) / number(USERS)).emit();
    drop(streams);
    notifier.close().await.unwrap();
}
