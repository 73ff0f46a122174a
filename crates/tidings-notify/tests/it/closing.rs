//! What ends, how, and that nothing is lost by it.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
use tidings_notify::redis::RedisOptions;
use tidings_notify::{
    Closed, Error, Item, MAX_PAGE_BYTES, MemoryStore, Notifier, Since, Store, StoreError,
};
use tidings_test_support::{RedisServer, soon};

use crate::database::{PATIENT, Schema};
use crate::redis::open_at;
use crate::support::{
    ann, draft, event_numbers, fresh_sqlite, numbers, push_numbers, without_sweep,
};

#[tokio::test]
async fn next_after_close_replies_closed() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..1).await;
    stream.close();
    stream.close();
    assert_eq!(stream.next().await, Err(Closed));
    assert_eq!(stream.next_batch(5, MAX_PAGE_BYTES).await, Err(Closed));
    assert_eq!(notifier.metrics().active_streams, 0);
}

#[tokio::test]
async fn closing_the_notifier_ends_open_streams_and_refuses_everything_later() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert!(matches!(
        stream.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    notifier.close().await.unwrap();
    notifier.close().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(Closed));

    let everyone = tidings_notify::InboxAction::ReadAll;
    assert!(matches!(notifier.push(draft(1)).await, Err(Error::Closed)));
    assert!(matches!(
        notifier.push_multi([ann()], draft(1)).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        notifier.subscribe(ann(), Since::Now).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        notifier.change(&ann(), &everyone).await,
        Err(Error::Closed)
    ));
    assert_eq!(notifier.store().head(&ann()).await.unwrap().top_seq, 0);
}

#[tokio::test]
async fn regression_closing_the_notifier_gives_what_was_waiting_first() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(4)
        .build()
        .unwrap();
    let mut live = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut behind = notifier.subscribe(ann(), Since::Start).await.unwrap();
    push_numbers(&notifier, 0..20).await;
    notifier.close().await.unwrap();
    for stream in [&mut live, &mut behind] {
        assert_eq!(numbers(stream, 20).await, (0..20).collect::<Vec<_>>());
        assert_eq!(stream.next().await, Err(Closed));
    }
}

#[tokio::test]
async fn a_backlog_is_given_in_full_after_the_notifier_was_closed() {
    let (store, _folder) = fresh_sqlite().await;
    let notifier = without_sweep(store).buffer_size(3).build().unwrap();
    push_numbers(&notifier, 0..10).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    notifier.close().await.unwrap();
    let mut items = Vec::new();
    while let Ok(item) = stream.next().await {
        items.push(item);
    }
    assert_eq!(event_numbers(&items), (0..10).collect::<Vec<_>>());
    assert!(matches!(items.last(), Some(Item::CaughtUp { .. })));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_notifier_and_its_streams_ends_the_tasks() {
    let handle = tokio::runtime::Handle::current();
    let before = handle.metrics().num_alive_tasks();
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    drop(notifier);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(handle.metrics().num_alive_tasks() > before);
    drop(stream);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handle.metrics().num_alive_tasks(), before);
}

/// The last stream of a user leaves while another one comes: the newcomer must be woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_stream_that_opens_while_the_last_one_closes_gets_live_events() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut leaving = notifier.subscribe(ann(), Since::Now).await.unwrap();
    for round in 0..2000 {
        let opening = tokio::spawn({
            let notifier = notifier.clone();
            async move { notifier.subscribe(ann(), Since::Now).await.unwrap() }
        });
        let closing = tokio::spawn(async move { drop(leaving) });
        let (opened, closed) = tokio::join!(opening, closing);
        closed.unwrap();
        let mut stream = opened.unwrap();
        push_numbers(&notifier, round..round + 1).await;
        assert_eq!(numbers(&mut stream, 1).await, [round]);
        leaving = stream;
    }
}

/// Closes a store while its server holds an append back, and lets it go on when another one was refused.
async fn closing_during_an_append(
    store: &dyn Store,
    begun: impl Future<Output = ()> + Send,
    go_on: impl Future<Output = ()> + Send,
) {
    let closing = async {
        begun.await;
        let refusing = async {
            let refused = store.append(vec![draft(2)]);
            let (refused, ()) = tokio::join!(refused, go_on);
            assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
        };
        tokio::join!(store.close(), refusing);
    };
    let appending = store.append(vec![draft(1)]);
    let (appended, ()) = soon("the append", async { tokio::join!(appending, closing) }).await;
    assert_eq!(appended.unwrap().len(), 1);
}

#[tokio::test]
async fn regression_an_append_that_postgres_has_begun_is_not_given_up_by_a_close() {
    const HOLD: &str = "CREATE TABLE opened ();
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            WHILE NOT EXISTS (SELECT FROM opened) LOOP PERFORM pg_sleep(0.01); END LOOP;
            RETURN NEW;
        END $$;
        CREATE TRIGGER hold BEFORE INSERT ON tidings_notify_event
        FOR EACH ROW EXECUTE FUNCTION hold()";
    const HELD: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = $1 AND wait_event = 'PgSleep'";
    let schema = Schema::create().await;
    let client = schema.config().connect().await.unwrap();
    let name = format!("held{:016x}", fastrand::u64(..));
    let config = Config::new(&format!("{}&application_name={name}", schema.url())).unwrap();
    let store = PostgresStore::open(config.with_reply_limit(PATIENT), PostgresOptions::default());
    let store = store.await.unwrap();
    client.batch_execute(HOLD).await.unwrap();
    let is_held = async || {
        let row = client.query_one(HELD, &[&name]).await.unwrap();
        row.get::<_, i64>(0) > 0
    };
    let begun = async { while !is_held().await {} };
    closing_during_an_append(&store, begun, async {
        let open = "INSERT INTO opened DEFAULT VALUES";
        client.batch_execute(open).await.unwrap();
    })
    .await;
    let other = schema.store().await;
    assert_eq!(other.head(&ann()).await.unwrap().top_seq, 1);
}

#[tokio::test]
async fn regression_an_append_that_redis_has_got_is_not_given_up_by_a_close() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    server
        .command(&["CLIENT", "PAUSE", "100000", "WRITE"])
        .unwrap();
    let is_held = || {
        server
            .command(&["INFO", "clients"])
            .unwrap()
            .contains("blocked_clients:1")
    };
    let begun = async {
        while !is_held() {
            tokio::task::yield_now().await;
        }
    };
    closing_during_an_append(&store, begun, async {
        server.command(&["CLIENT", "UNPAUSE"]).unwrap();
    })
    .await;
    let other = open_at(&server.url(), RedisOptions::default()).await;
    assert_eq!(other.head(&ann()).await.unwrap().top_seq, 1);
}
