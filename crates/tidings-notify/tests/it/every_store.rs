//! What streams promise on every store alike.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{
    Epoch, Error, EventId, GapReason, Item, MemoryStore, Notifier, Since, Store, StoreError,
    Subscription, UserId,
};

use crate::database::Schema;
use crate::support::{NEVER, ann, draft, fresh_sqlite, numbers, push_numbers, user};

/// Runs a behaviour on an empty store of each kind.
async fn on_every_store(behaviour: impl AsyncFn(&str, Arc<dyn Store>)) {
    let (sqlite, _folder) = fresh_sqlite().await;
    let schema = Schema::create().await;
    let redis = crate::redis::open(&crate::redis::prefix()).await;
    let stores: [(&str, Arc<dyn Store>); 4] = [
        ("memory", Arc::new(MemoryStore::new())),
        ("SQLite", Arc::new(sqlite)),
        ("PostgreSQL", Arc::new(schema.store().await)),
        ("Redis", Arc::new(redis)),
    ];
    for (name, store) in stores {
        let limit = Duration::from_secs(60);
        let done = tokio::time::timeout(limit, behaviour(name, store.clone())).await;
        assert!(done.is_ok(), "{name}: not done within a minute");
        store.close().await;
    }
}

fn notifier(store: Arc<dyn Store>) -> Notifier {
    Notifier::builder(store)
        .poll_interval(NEVER)
        .build()
        .unwrap()
}

async fn first_gap(stream: &mut Subscription) -> GapReason {
    match stream.next().await.unwrap() {
        Item::Gap(gap) => gap.reason,
        other => panic!("expected a gap: {other:?}"),
    }
}

#[tokio::test]
async fn resuming_after_the_first_of_three_gives_exactly_the_next_two() {
    on_every_store(async |name, store| {
        let notifier = notifier(store);
        let events = push_numbers(&notifier, 0..3).await;
        let since = Since::After(events[0].id);
        let mut stream = notifier.subscribe(ann(), since).await.unwrap();
        assert_eq!(stream.take_hello().unwrap().cursor, events[0].id);
        assert_eq!(numbers(&mut stream, 2).await, [1, 2], "{name}");
        let cursor = events[2].id;
        let caught_up = stream.next().await.unwrap();
        assert_eq!(caught_up, Item::CaughtUp { cursor }, "{name}");
        push_numbers(&notifier, 3..4).await;
        assert_eq!(numbers(&mut stream, 1).await, [3], "{name}");
    })
    .await;
}

#[tokio::test]
async fn regression_a_stream_without_a_cursor_gets_new_events_only() {
    on_every_store(async |name, store| {
        let notifier = notifier(store);
        let events = push_numbers(&notifier, 0..3).await;
        let mut stream = notifier.subscribe(ann(), Since::default()).await.unwrap();
        assert_eq!(stream.take_hello().unwrap().cursor, events[2].id);
        push_numbers(&notifier, 3..4).await;
        assert_eq!(numbers(&mut stream, 1).await, [3], "{name}");
    })
    .await;
}

/// Unknown, foreign and beyond the top: each is a gap, and then comes the oldest that is kept.
#[tokio::test]
async fn regression_a_cursor_that_is_not_in_the_log_makes_a_gap_then_the_oldest_kept() {
    on_every_store(async |name, store| {
        let notifier = notifier(store);
        let events = push_numbers(&notifier, 0..3).await;
        let epoch = events[0].id.epoch;
        for (cursor, reason) in [
            ("garbage".to_owned(), GapReason::Invalid),
            (
                EventId::new(Epoch::random(), 2).to_string(),
                GapReason::UnknownEpoch,
            ),
            (EventId::new(epoch, 4).to_string(), GapReason::Ahead),
            (EventId::new(epoch, u64::MAX).to_string(), GapReason::Ahead),
        ] {
            let since = Since::Cursor(cursor.clone());
            let mut stream = notifier.subscribe(ann(), since).await.unwrap();
            assert_eq!(first_gap(&mut stream).await, reason, "{name}: {cursor}");
            assert_eq!(numbers(&mut stream, 3).await, [0, 1, 2], "{name}: {cursor}");
        }
    })
    .await;
}

#[tokio::test]
async fn regression_an_expired_cursor_makes_a_gap_then_the_oldest_kept() {
    on_every_store(async |name, store| {
        let notifier = notifier(store.clone());
        let events = push_numbers(&notifier, 0..3).await;
        // By the store's own clock, and after all three.
        let mut removed = 0;
        while removed < 3 {
            removed += store.cleanup(jiff::Timestamp::now()).await.unwrap();
        }
        push_numbers(&notifier, 3..5).await;
        let since = Since::After(events[0].id);
        let mut stream = notifier.subscribe(ann(), since).await.unwrap();
        assert_eq!(first_gap(&mut stream).await, GapReason::Expired, "{name}");
        assert_eq!(numbers(&mut stream, 2).await, [3, 4], "{name}");
        // The last of those that are gone is right before the oldest that is kept.
        let since = Since::After(events[2].id);
        let mut stream = notifier.subscribe(ann(), since).await.unwrap();
        assert_eq!(numbers(&mut stream, 2).await, [3, 4], "{name}");
        assert_eq!(stream.gaps(), 0, "{name}");
    })
    .await;
}

#[tokio::test]
async fn regression_a_slow_reader_gets_a_backlog_longer_than_the_buffer_in_order() {
    on_every_store(async |name, store| {
        let notifier = Notifier::builder(store)
            .poll_interval(NEVER)
            .buffer_size(2)
            .build()
            .unwrap();
        let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
        push_numbers(&notifier, 0..40).await;
        let given = numbers(&mut stream, 40).await;
        assert_eq!(given, (0..40).collect::<Vec<_>>(), "{name}");
        assert_eq!(stream.gaps(), 0, "{name}");
    })
    .await;
}

#[tokio::test]
async fn regression_a_batch_gives_every_user_an_event_with_its_own_id() {
    on_every_store(async |name, store| {
        let notifier = notifier(store.clone());
        let users: Vec<UserId> = ["c", "a", "b"].map(user).to_vec();
        notifier.push(draft(0).with_user(user("a"))).await.unwrap();
        let pushed = notifier.push_multi(users.clone(), draft(1)).await.unwrap();
        assert_eq!(pushed.len(), users.len());
        for (pushed, (user, seq)) in pushed.iter().zip(users.iter().zip([1, 2, 1])) {
            let tidings_notify::Pushed::Stored(event) = pushed else {
                panic!("{name}: {pushed:?}");
            };
            assert_eq!((&event.user, event.id.seq), (user, seq), "{name}");
            let found = store.find(user, event.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(event), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn regression_closing_the_notifier_gives_what_was_waiting_first() {
    on_every_store(async |name, store| {
        let notifier = notifier(store);
        let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
        push_numbers(&notifier, 0..3).await;
        notifier.close().await.unwrap();
        assert_eq!(numbers(&mut stream, 3).await, [0, 1, 2], "{name}");
        let refused = notifier.push(draft(3)).await;
        assert!(matches!(refused, Err(Error::Closed)), "{name}: {refused:?}");
        while stream.next().await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn closing_a_store_ends_its_streams() {
    on_every_store(async |name, store| {
        // The next sweep notices.
        let notifier = Notifier::builder(store.clone())
            .poll_interval(Duration::from_millis(10))
            .build()
            .unwrap();
        let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
        store.close().await;
        while stream.next().await.is_ok() {}
        let refused = notifier.push(draft(1)).await;
        assert!(
            matches!(refused, Err(Error::Store(StoreError::Closed))),
            "{name}: {refused:?}"
        );
    })
    .await;
}

/// However many streams wait, an instance has as many connections to its server as without them.
#[tokio::test]
async fn regression_streams_have_no_connections_of_their_own() {
    let redis = tidings_test_support::RedisServer::start().await.unwrap();
    let options = tidings_notify::redis::RedisOptions::default();
    let store = crate::redis::open_at(&redis.url(), options).await;
    let of_redis = async || -> u64 {
        let clients = redis.command(&["CLIENT", "LIST"]).unwrap();
        // Without the one that asks.
        clients
            .lines()
            .filter(|it| !it.contains("cmd=client"))
            .count() as u64
    };
    streams_need_no_connection(Arc::new(store), of_redis, 2).await;

    let schema = Schema::create().await;
    let client = schema.client().await;
    let mark = format!("mark{:016x}", fastrand::u64(..));
    let url = format!("{}&application_name={mark}", schema.url());
    let config = tidings_notify::postgres::Config::new(&url).unwrap();
    let options = tidings_notify::postgres::PostgresOptions::default().with_connections(2);
    let store = tidings_notify::postgres::PostgresStore::open(config, options);
    let of_postgres = async || -> u64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let row = client.query_one(count, &[&mark]).await.unwrap();
        row.get::<_, i64>(0).cast_unsigned()
    };
    streams_need_no_connection(Arc::new(store.await.unwrap()), of_postgres, 4).await;
}

async fn streams_need_no_connection(
    store: Arc<dyn Store>,
    connections: impl AsyncFn() -> u64,
    most: u64,
) {
    let notifier = Notifier::builder(store)
        .poll_interval(Duration::from_millis(10))
        .build()
        .unwrap();
    let mut streams = Vec::new();
    for n in 0..300 {
        let user = user(&format!("user-{n}"));
        streams.push(notifier.subscribe(user, Since::Start).await.unwrap());
    }
    for n in 0..300 {
        let user = user(&format!("user-{n}"));
        notifier.push(draft(n).with_user(user)).await.unwrap();
    }
    for (n, stream) in (0..).zip(&mut streams) {
        assert_eq!(numbers(stream, 1).await, [n]);
    }
    let open = connections().await;
    assert!(open <= most, "{open} connections");
}
