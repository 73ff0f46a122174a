//! What a replica on Redis had not got when it took over.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::redis::{Config, RedisOptions, RedisStore};
use tidings_notify::{GapReason, Item, Notifier, Since, Store, StoreError, Subscription};
use tidings_test_support::{Proxy, RedisServer, soon};
use tokio::time::sleep;

use crate::postgres_faults::Screens;
use crate::redis::{open_at, retried};
use crate::support::{ann, draft, number, numbers};

/// Makes a server a replica of the one behind a link, and waits until it is one.
pub(crate) async fn follow(replica: &RedisServer, primary: &RedisServer, link: &Proxy) {
    let at_once = ["CONFIG", "SET", "repl-diskless-sync-delay", "0"];
    primary.command(&at_once).unwrap();
    let address = link.url().trim_start_matches("redis://");
    let (host, port) = address.trim_end_matches('/').split_once(':').unwrap();
    replica.command(&["REPLICAOF", host, port]).unwrap();
    until("the replica has begun", || {
        let info = replica.command(&["INFO", "replication"]).unwrap();
        info.contains("master_link_status:up")
    })
    .await;
}

/// Waits until a replica has got what its primary has.
pub(crate) async fn until_alike(replica: &RedisServer, primary: &RedisServer) {
    let offset = |server: &RedisServer| {
        let info = server.command(&["INFO", "replication"]).unwrap();
        let offset = |line: &str| line.strip_prefix("master_repl_offset:")?.parse().ok();
        info.lines().find_map(offset)
    };
    let all: Option<u64> = offset(primary);
    assert!(all.is_some());
    until("the replica has everything", || offset(replica) >= all).await;
}

async fn until(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, waiting).await;
}

/// Reads up to the event of a number, and returns the reasons of the gaps, and the numbers of the events
/// after the last of them.
async fn after_the_last_gap(stream: &mut Subscription, last: u64) -> (Vec<GapReason>, Vec<u64>) {
    let (mut gaps, mut given) = (Vec::new(), Vec::new());
    while given.last() != Some(&last) {
        match soon("an item", stream.next()).await.unwrap() {
            Item::Gap(gap) => {
                gaps.push(gap.reason);
                given.clear();
            }
            Item::Event(event) => given.push(number(&event)),
            _ => {}
        }
    }
    (gaps, given)
}

/// The replica lags, takes over, and gives the numbers of what it lacks to other events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lagging_replica_lacks_is_a_gap() {
    let mut primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::start().await.unwrap();
    let way = Proxy::start(&primary.url()).await.unwrap();
    let link = Proxy::start(&primary.url()).await.unwrap();
    follow(&replica, &primary, &link).await;
    let store = open_at(way.url(), RedisOptions::default()).await;
    let notifier = Notifier::builder(Arc::new(store.clone()))
        .poll_interval(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut live = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let kept = store.append((0..5).map(draft).collect()).await.unwrap();
    let mark = store.mark().await.unwrap();
    until_alike(&replica, &primary).await;
    link.freeze();
    let lost = store.append((5..8).map(draft).collect()).await.unwrap();
    let before = soon("what is stored", numbers(&mut live, 8)).await;
    assert_eq!(before, (0..8).collect::<Vec<_>>());

    way.lead_to(&replica.url()).unwrap();
    primary.stop().unwrap();
    // The connection that broke, and then a replica, which takes nothing.
    for _ in 0..2 {
        let refused = store.append(vec![draft(9)]).await;
        assert!(
            matches!(
                refused,
                Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
            ),
            "{refused:?}"
        );
    }
    replica.promote().unwrap();
    let changes = soon("changes", retried(async || store.changes(&mark, 10).await)).await;
    assert!(changes.rewound);
    // One who has only what is kept, and one who comes back with an event that is gone.
    let since = Since::After(kept[2].id);
    let mut behind = notifier.subscribe(ann(), since).await.unwrap();
    let since = Since::After(lost[1].id);
    let mut ahead = notifier.subscribe(ann(), since.clone()).await.unwrap();
    let Item::Gap(gap) = soon("the gap", ahead.next()).await.unwrap() else {
        panic!("expected a gap");
    };
    assert_eq!(gap.reason, GapReason::Ahead);

    let stored = soon(
        "an append",
        retried(async || store.append((10..15).map(draft).collect()).await),
    )
    .await;
    assert_eq!(stored[0].id.seq, lost[0].id.seq);
    assert_ne!(stored[0].id.epoch, lost[0].id.epoch);
    let mut late = notifier.subscribe(ann(), since).await.unwrap();
    for (name, stream) in [
        ("live", &mut live),
        ("behind", &mut behind),
        ("ahead", &mut ahead),
        ("late", &mut late),
    ] {
        let (gaps, given) = after_the_last_gap(stream, 14).await;
        assert!(gaps.contains(&GapReason::UnknownEpoch), "{name}: {gaps:?}");
        assert_eq!(given, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_change_on_a_promoted_replica_is_not_taken_for_one_that_it_lacks() {
    let mut primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::start().await.unwrap();
    let way = Proxy::start(&primary.url()).await.unwrap();
    let link = Proxy::start(&primary.url()).await.unwrap();
    follow(&replica, &primary, &link).await;
    let store = open_at(way.url(), RedisOptions::default()).await;
    let screens = Screens::of(Arc::new(store)).await;
    until_alike(&replica, &primary).await;
    link.freeze();
    screens
        .hear_of_a_change_after(async || {
            way.lead_to(&replica.url()).unwrap();
            primary.stop().unwrap();
            replica.promote().unwrap();
        })
        .await;
}

/// It keeps its connections, and replies to what only reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_server_that_became_a_replica_is_not_read_from() {
    let server = RedisServer::start().await.unwrap();
    let config = Config::new(&server.url()).unwrap();
    let config = config.with_health_interval(Duration::from_millis(50));
    let store = RedisStore::open(config, RedisOptions::default());
    let store = store.await.unwrap();
    let stored = store.append(vec![draft(0)]).await.unwrap();
    let mark = store.mark().await.unwrap();
    server.demote().unwrap();
    let refused = async {
        loop {
            match store.changes(&mark, 10).await {
                Ok(_) => sleep(Duration::from_millis(5)).await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = soon("a refusal", refused).await;
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    for refused in [
        store.read(&ann(), 0, 10).await.map(drop),
        store.heads(&[ann()]).await.map(drop),
        store.find(&ann(), stored[0].id).await.map(drop),
    ] {
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
    }
    server.promote().unwrap();
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 1);
}

/// A server that was a replica for a while may lack what it had before, and its process is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_a_server_lost_as_a_replica_is_a_gap() {
    let first = RedisServer::start().await.unwrap();
    let second = RedisServer::start().await.unwrap();
    let link = Proxy::start(&first.url()).await.unwrap();
    let back = Proxy::start(&second.url()).await.unwrap();
    follow(&second, &first, &link).await;
    let store = open_at(&first.url(), RedisOptions::default()).await;
    store.append((0..5).map(draft).collect()).await.unwrap();
    until_alike(&second, &first).await;
    link.freeze();
    let lost = store.append((5..8).map(draft).collect()).await.unwrap();
    let mark = store.mark().await.unwrap();

    second.promote().unwrap();
    follow(&first, &second, &back).await;
    until_alike(&first, &second).await;
    first.promote().unwrap();
    let changes = soon("changes", retried(async || store.changes(&mark, 10).await)).await;
    assert!(changes.rewound);
    let stored = soon(
        "an append",
        retried(async || store.append((10..13).map(draft).collect()).await),
    )
    .await;
    assert_eq!(stored[2].id.seq, lost[2].id.seq);
    let notifier = Notifier::new(Arc::new(store));
    let since = Since::After(lost[2].id);
    let mut stream = notifier.subscribe(ann(), since).await.unwrap();
    let (gaps, given) = after_the_last_gap(&mut stream, 12).await;
    assert_eq!(gaps, [GapReason::UnknownEpoch]);
    assert_eq!(given, [0, 1, 2, 3, 4, 10, 11, 12]);
}
