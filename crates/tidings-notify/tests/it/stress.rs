//! Many tasks on several threads: nothing is lost, repeated, reordered, or stuck.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{MemoryStore, Notifier, Since, Store};

use crate::support::{draft, fresh_sqlite, number, numbers, user};

const USERS: u64 = 4;
const STREAMS: u64 = 8;
const PUSHERS: u64 = 8;
const EVENTS: u64 = 50;

/// Streams on two instances, of which the second hears only by its sweep, against concurrent
/// pushes on the first.
async fn streams_and_pushes(store: Arc<dyn Store>) {
    let first = Notifier::builder(store.clone())
        .buffer_size(4)
        .build()
        .unwrap();
    let second = Notifier::builder(store.clone())
        .poll_interval(Duration::from_millis(10))
        .buffer_size(4)
        .build()
        .unwrap();
    let total = usize::try_from(PUSHERS * EVENTS).unwrap();
    let mut readers = Vec::new();
    for n in 0..USERS * STREAMS {
        let notifier = if n % 2 == 0 { &first } else { &second };
        let user = user(&format!("user-{}", n % USERS));
        let mut stream = notifier.subscribe(user.clone(), Since::Now).await.unwrap();
        readers.push(tokio::spawn(async move {
            (user, numbers(&mut stream, total).await)
        }));
    }
    let mut pushers = Vec::new();
    for pusher in 0..PUSHERS {
        let notifier = first.clone();
        pushers.push(tokio::spawn(async move {
            for event in 0..EVENTS {
                let users = (0..USERS).map(|n| user(&format!("user-{n}")));
                let draft = draft(pusher * EVENTS + event);
                notifier.push_multi(users, draft).await.unwrap();
            }
        }));
    }
    for pusher in pushers {
        pusher.await.unwrap();
    }
    for reader in readers {
        let (user, given) = reader.await.unwrap();
        let log = store.read(&user, 0, total + 1).await.unwrap().events;
        let expected: Vec<_> = log.iter().map(number).collect();
        assert_eq!(given, expected);
        assert_eq!(given.len(), total);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_streams_and_pushes_on_a_memory_store() {
    streams_and_pushes(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_streams_and_pushes_on_a_sqlite_store() {
    let (store, _folder) = fresh_sqlite().await;
    streams_and_pushes(Arc::new(store)).await;
}

/// Streams come and go, each resuming where the last left off, while events are pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_reconnects_all_the_time_misses_nothing() {
    let notifier = Notifier::builder(Arc::new(MemoryStore::new()))
        .buffer_size(2)
        .build()
        .unwrap();
    let reader = tokio::spawn({
        let notifier = notifier.clone();
        async move {
            let mut cursor = tidings_notify::EventId::ORIGIN;
            let mut given = Vec::new();
            while given.len() < 1000 {
                let since = Since::Cursor(cursor.to_string());
                let mut stream = notifier.subscribe(user("ann"), since).await.unwrap();
                given.extend(numbers(&mut stream, 1 + given.len() % 3).await);
                cursor = stream.cursor();
            }
            given
        }
    });
    for number in 0..1010 {
        notifier.push(draft(number)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let given = reader.await.unwrap();
    assert_eq!(given, (0..given.len() as u64).collect::<Vec<_>>());
}
