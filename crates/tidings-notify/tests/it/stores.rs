//! The stores keep the contract that they share, and each its own promises.

use jiff::Timestamp;
use tidings_notify::conformance::Subject;
use tidings_notify::{Item, MemoryStore, Since, SqliteStore, Store, store_conformance};

use crate::support::{ann, draft, fresh_sqlite, numbers, open_sqlite, push_numbers, without_sweep};

store_conformance!(memory, Subject::new(MemoryStore::new()));
store_conformance!(sqlite, sqlite_subject().await);

/// Two handles on one file, as two processes would have them.
async fn sqlite_subject() -> Subject {
    let (store, folder) = fresh_sqlite().await;
    let second = SqliteStore::open(open_sqlite(&folder)).await.unwrap();
    Subject::new(store)
        .with_second_handle(second)
        .keeping(folder)
}

#[tokio::test]
async fn a_memory_store_keeps_a_bounded_log_and_streams_are_told() {
    let store = MemoryStore::new().with_max_events_per_user(3);
    let notifier = without_sweep(store.clone()).with_buffer_size(1).build();
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

/// The unread filter must not read through the whole log.
#[tokio::test]
async fn unread_events_are_found_by_their_index() {
    let (store, folder) = fresh_sqlite().await;
    store.append(vec![draft(1)]).await.unwrap();
    let plan = async |condition: &'static str| {
        let database = crate::support::open_sqlite(&folder);
        database
            .read::<String, tidings_sqlite::Error, _>(move |connection| {
                let sql = format!(
                    "EXPLAIN QUERY PLAN SELECT key FROM notify_event {condition}
                     AND key BETWEEN 1 AND 9 ORDER BY key DESC LIMIT 5"
                );
                Ok(connection.query_row(&sql, [], |row| row.get("detail"))?)
            })
            .await
            .unwrap()
    };
    let unread = plan("INDEXED BY notify_event_unread WHERE read_at IS NULL").await;
    assert!(unread.contains("key>? AND key<?"), "{unread}");
}

#[tokio::test]
async fn a_database_failure_names_the_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::support::open_sqlite(&folder);
    let store = tidings_notify::SqliteStore::open(database.clone())
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
        matches!(refused, Err(tidings_notify::StoreError::Full { .. })),
        "{refused:?}"
    );
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 0);
    assert_eq!(store.cleanup(Timestamp::now()).await.unwrap(), 0);
}
