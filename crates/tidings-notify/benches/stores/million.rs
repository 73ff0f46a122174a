//! A store with a million events.

use std::sync::Arc;

use jiff::Timestamp;
use tidings_bench::{Latencies, Rate, Row, is_quick};
use tidings_notify::{InboxAction, InboxQuery, Store, UserId};
use tokio::time::Instant;

use crate::figures::{draft, user};

const USERS: usize = 1000;

pub(crate) async fn measure(store: Arc<dyn Store>) {
    let (one, many) = (user(1_000_000), |it: usize| user(2_000_000 + it % USERS));
    // In one log, and as many in the logs of 1,000 users.
    let events = if is_quick() { 50_000 } else { 500_000 };
    let before = calls(&store, &one).await;
    let started = Instant::now();
    let mut latencies = Latencies::default();
    for batch in (0..events).collect::<Vec<_>>().chunks(1000) {
        let mut drafts: Vec<_> = batch.iter().map(|_| draft(one.clone())).collect();
        drafts.extend(batch.iter().map(|it| draft(many(*it))));
        let began = Instant::now();
        store.append(drafts).await.unwrap();
        latencies.add(began.elapsed());
    }
    let rate = Rate::new(2 * events, started.elapsed(), &latencies);
    let after = calls(&store, &one).await;
    for ((what, before), (_, after)) in before.into_iter().zip(after) {
        Row::time(&format!("SQLite, {what}, {} events", 2 * events), &after)
            .beside("few events", &before)
            .emit();
    }
    Row::rate("SQLite, append by 2,000", "events/s", rate).emit();
}

async fn calls(store: &Arc<dyn Store>, one: &UserId) -> Vec<(&'static str, Latencies)> {
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

async fn time<T>(call: impl AsyncFn() -> T) -> Latencies {
    let mut times = Latencies::default();
    for _ in 0..100 {
        let started = Instant::now();
        let _result = call().await;
        times.add(started.elapsed());
    }
    times
}
