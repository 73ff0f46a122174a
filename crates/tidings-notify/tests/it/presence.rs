//! Who is online, and where.

mod clock;
mod failover;
mod faults;
mod killed;
mod postgres;
mod redis;
mod tracker;

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::presence::{Tracker, TrackerOptions, Watch, WatchItem};
use tidings_notify::{MemoryPresence, Presence, UserId, presence_conformance};

use crate::support::place;

presence_conformance!(memory, {
    let presence = MemoryPresence::new();
    let handle = || Arc::new(presence.clone()) as Arc<dyn Presence>;
    ([handle(), handle()], ())
});

presence_conformance!(on_postgres, crate::presence::postgres::fresh().await);

presence_conformance!(on_redis, crate::presence::redis::fresh().await);

/// How long a test waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instance that notices soon what is missing, and reports at once.
fn quick(presence: &Arc<dyn Presence>, instance: &str) -> Tracker {
    let options = TrackerOptions::default()
        .with_lease_ttl(Duration::from_secs(3))
        .with_grace(Duration::ZERO)
        .with_watch_interval(Duration::from_millis(10));
    Tracker::join(presence.clone(), place(instance), options).unwrap()
}

/// Waits for something, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens within a minute")
}

/// Asks until exactly these users of those are online. The server may be away in between.
async fn until_online(presence: &Arc<dyn Presence>, of: &[UserId], expected: &[UserId]) {
    soon(async {
        while !presence
            .online_users(of)
            .await
            .is_ok_and(|online| online == expected)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Asks until a user is found at this instance alone.
async fn until_located(presence: &Arc<dyn Presence>, user: &UserId, instance: &str) {
    soon(async {
        while !presence
            .locate(user)
            .await
            .is_ok_and(|places| places == [place(instance)])
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until a watch reports that a user came online or went offline, or that reports are missing, in
/// which case presence is asked.
async fn until_reported(watch: &mut Watch, presence: &Arc<dyn Presence>, expected: WatchItem) {
    let (user, is_online) = match &expected {
        WatchItem::Online(user) => (user, true),
        WatchItem::Offline(user) => (user, false),
        other => panic!("no user came or went: {other:?}"),
    };
    soon(async {
        loop {
            match watch.next().await.unwrap() {
                item if item == expected => break,
                WatchItem::Lagged
                    if presence
                        .is_online(user)
                        .await
                        .is_ok_and(|now| now == is_online) =>
                {
                    break;
                }
                _ => {}
            }
        }
    })
    .await;
}
