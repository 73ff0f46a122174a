//! A store with a million events.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_notify::{InboxAction, InboxQuery, Store, UserId};
use tokio::time::Instant;

use crate::figures::{draft, user};

/// In one log, and as many in the logs of 1,000 users.
const EVENTS: usize = 500_000;
const USERS: usize = 1000;

pub(crate) async fn measure(store: Arc<dyn Store>) {
    let (one, many) = (user(1_000_000), |it: usize| user(2_000_000 + it % USERS));
    println!("  µs, median of 100                            before     with a million");
    let before = calls(&store, &one).await;
    let started = Instant::now();
    for batch in (0..EVENTS).collect::<Vec<_>>().chunks(1000) {
        let mut drafts: Vec<_> = batch.iter().map(|_| draft(one.clone())).collect();
        drafts.extend(batch.iter().map(|it| draft(many(*it))));
        store.append(drafts).await.unwrap();
    }
    let rate = 2.0 * EVENTS as f64 / started.elapsed().as_secs_f64();
    let after = calls(&store, &one).await;
    for ((what, before), (_, after)) in before.into_iter().zip(after) {
        println!("  {what:<40}{before:>12.0}{after:>15.0}");
    }
    println!("  appended by 2,000: {rate:.0} events/s");
}

async fn calls(store: &Arc<dyn Store>, one: &UserId) -> Vec<(&'static str, f64)> {
    store.append(vec![draft(one.clone())]).await.unwrap();
    let top = store.head(one).await.unwrap().top_seq;
    let all = InboxQuery::default();
    let unread = all.clone().with_unread_only();
    let append = async || store.append(vec![draft(one.clone())]).await.unwrap();
    let read_all = async || {
        append().await;
        let change = store.change(one, &InboxAction::ReadAll, Timestamp::now());
        change.await.unwrap()
    };
    let since = async || {
        store
            .cursor_before(one, Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
    };
    let inbox = async |query| store.inbox(one, query).await.unwrap();
    vec![
        ("append one event", time(append).await),
        ("head", time(async || store.head(one).await.unwrap()).await),
        (
            "read 100 from the middle",
            time(async || store.read(one, top / 2, 100).await.unwrap()).await,
        ),
        ("find a time", time(since).await),
        (
            "first page of the inbox",
            time(async || inbox(&all).await).await,
        ),
        (
            "first page of what is unread",
            time(async || inbox(&unread).await).await,
        ),
        ("append one event, read all", time(read_all).await),
    ]
}

async fn time<T>(call: impl AsyncFn() -> T) -> f64 {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        let _result = call().await;
        times.push(started.elapsed());
    }
    times.sort();
    times[50].as_secs_f64() * 1e6
}
