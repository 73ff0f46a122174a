//! The stores keep the contract that they share, and each its own promises.

use std::collections::HashSet;

use jiff::Timestamp;
use tidings_notify::conformance::Subject;
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{
    Draft, EventId, EventType, InboxAction, Item, MAX_DRAFTS, MemoryStore, Payload, Since, Store,
    UserId, store_conformance,
};

use crate::support::{
    ann, draft, fresh_sqlite, numbers, open_sqlite, push_numbers, user, without_sweep,
};

store_conformance!(memory, memory_subject());
store_conformance!(sqlite, sqlite_subject().await);
store_conformance!(redis, crate::redis::subject().await);

fn memory_subject() -> Subject {
    let store = MemoryStore::new();
    let limited = store.clone().with_max_events_per_user(5);
    Subject::new(store)
        .with_limit(5, limited.clone())
        .with_unread_kept(5, limited.with_unread_kept())
}

/// Two handles on one file, as two processes would have them.
async fn sqlite_subject() -> Subject {
    let (store, folder) = fresh_sqlite().await;
    let database = open_sqlite(&folder);
    let open = async |options| SqliteStore::open(database.clone(), options).await.unwrap();
    let limited = SqliteOptions::default().with_max_events_per_user(5);
    let keeping = limited.clone().with_unread_kept();
    Subject::new(store)
        .with_second_handle(open(SqliteOptions::default()).await)
        .with_limit(5, open(limited).await)
        .with_unread_kept(5, open(keeping).await)
        .keeping(folder)
}

#[tokio::test]
async fn a_memory_store_keeps_a_bounded_log_and_streams_get_a_gap() {
    let store = MemoryStore::new().with_max_events_per_user(3);
    let notifier = without_sweep(store.clone()).buffer_size(1).build().unwrap();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&notifier, 0..10).await;

    let head = store.head(&ann()).await.unwrap();
    assert_eq!((head.first_seq, head.top_seq, head.unread), (8, 10, 3));
    assert!(matches!(slow.next().await.unwrap(), Item::CaughtUp { .. }));
    let Item::Gap(gap) = slow.next().await.unwrap() else {
        panic!("expected a gap");
    };
    assert_eq!(gap.to, events[6].id);
    assert_eq!(numbers(&mut slow, 3).await, [7, 8, 9]);
}

/// In several transactions, and none is left with the epoch that events which are gone had.
#[tokio::test]
async fn every_log_of_an_older_copy_gets_a_new_epoch_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.db");
    let open = async || {
        let options = tidings_sqlite::Options::default().with_exclusive_lock();
        let database = tidings_sqlite::Database::open(&path, &options).unwrap();
        (
            SqliteStore::open(database.clone(), SqliteOptions::default())
                .await
                .unwrap(),
            database,
        )
    };
    let users: Vec<_> = (0..10_001).map(|n| user(&format!("user{n}"))).collect();
    let epochs = async |store: &SqliteStore| {
        let heads = store.heads(&users).await.unwrap();
        heads.into_iter().map(|head| head.epoch).collect::<Vec<_>>()
    };
    let (store, database) = open().await;
    let of = |user: &UserId| {
        let (kind, payload) = (EventType::new("test.number"), Payload::from_value(&1));
        Draft::new(user.clone(), kind.unwrap(), payload.unwrap())
    };
    for users in users.chunks(MAX_DRAFTS) {
        store.append(users.iter().map(of).collect()).await.unwrap();
    }
    let before = epochs(&store).await;
    database.close().await;
    let (store, database) = open().await;
    assert_eq!(epochs(&store).await, before, "it is the same file");
    database.close().await;

    std::fs::remove_file(folder.path().join("notify.db.lock")).unwrap();
    let (store, database) = open().await;
    let after = epochs(&store).await;
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before != after)
    );
    let different: HashSet<_> = after.iter().collect();
    assert_eq!(different.len(), users.len());
    let page = store.read(&users[10_000], 0, 10).await.unwrap();
    assert_eq!(page.events[0].id, EventId::new(after[10_000], 1));
    database.close().await;
    let (store, _) = open().await;
    assert_eq!(epochs(&store).await, after);
}

/// Marking a hundred thousand events as read writes one row, and listing what is unread afterwards reads
/// none of them.
#[tokio::test]
async fn reading_all_costs_one_row_for_any_number_of_events() {
    let (store, folder) = fresh_sqlite().await;
    for _ in 0..10 {
        store.append((0..1000).map(draft).collect()).await.unwrap();
    }
    let update = store
        .change(&ann(), &InboxAction::ReadAll, Timestamp::now())
        .await;
    assert_eq!(update.unwrap().changed, 10_000);
    let rows = open_sqlite(&folder)
        .read::<(u64, u64), tidings_sqlite::Error, _>(|connection| {
            Ok(connection.query_row(
                "SELECT (SELECT count(*) FROM notify_state), (SELECT count(*) FROM notify_read_mark)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?)
        })
        .await
        .unwrap();
    assert_eq!(rows, (0, 1));
}

#[tokio::test]
async fn a_database_failure_names_the_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::support::open_sqlite(&folder);
    let store = SqliteStore::open(database.clone(), SqliteOptions::default())
        .await
        .unwrap();
    database
        .write(|tx| {
            tx.query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))?;
            Ok::<_, tidings_sqlite::Error>(())
        })
        .await
        .unwrap();
    let refused = store.append((0..2000).map(draft).collect()).await;
    assert!(
        matches!(refused, Err(tidings_notify::StoreError::Full(_))),
        "{refused:?}"
    );
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 0);
    assert_eq!(store.cleanup(Timestamp::now()).await.unwrap(), 0);
}

/// A store in memory forgets changes that later ones have overtaken, and no other.
#[tokio::test]
async fn a_user_who_changes_often_hides_no_other() {
    let store = MemoryStore::new();
    let begun = store.mark().await.unwrap();
    let of_bob = draft(0).with_user(user("bob"));
    store.append(vec![of_bob]).await.unwrap();
    for number in 0..5_000 {
        store.append(vec![draft(number)]).await.unwrap();
    }
    let all = store.changes(&begun, 10).await.unwrap();
    let users: Vec<_> = all.logs.iter().map(|log| log.user.as_str()).collect();
    assert_eq!(users, ["bob", "ann"]);
    let first = store.changes(&begun, 1).await.unwrap();
    assert!(first.more);
    let rest = store.changes(&first.mark, 1).await.unwrap();
    assert_eq!(rest.logs[0].user, ann());
    assert!(!rest.more);
}
