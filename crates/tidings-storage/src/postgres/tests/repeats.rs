//! What is found in the database while the standby may lack it is not reported as done.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_notify::{InboxAction, UserId};
use tidings_postgres::Config;
use tidings_test_support::PostgresServer;

use super::super::commit;
use super::{create_key, is_unknown, to_anna};
use crate::idempotency::{IdempotencyKey, Once};
use crate::{Accept, Accepted, Changed, Keep, Storage};

/// A server of its own, and a storage that does not wait long for it.
async fn open() -> (PostgresServer, Storage) {
    let server = PostgresServer::start().unwrap();
    let config = Config::new(&server.url()).unwrap();
    let hasty = config.with_reply_limit(Duration::from_secs(1));
    let storage = super::super::open_in(hasty, None).await.unwrap();
    (server, storage)
}

/// Lets commits go on, and waits for those that were held.
fn let_go(server: &PostgresServer) {
    server.let_commits_go().unwrap();
    while server.held_commits().unwrap() > 0 {}
}

fn once() -> Once {
    Once::new(IdempotencyKey::new("key").unwrap(), "/v1/route", b"body")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_repeat_of_what_the_standby_may_lack_is_not_confirmed_either() {
    let (server, storage) = open().await;
    let accept = Accept {
        once: Some(once()),
        ..to_anna()
    };
    server.hold_commits().unwrap();
    let (records, first) = (Arc::clone(&storage.records), accept.clone());
    let accepting = tokio::spawn(async move { records.accept(first).await });
    server.cut_off_a_commit().await.unwrap();
    let accepted = accepting.await.unwrap();
    assert!(is_unknown(&accepted), "{accepted:?}");
    // It can be read.
    let earlier = storage.requests.earlier(accept.clone()).await;
    assert!(is_unknown(&earlier), "{earlier:?}");
    let repeated = storage.records.accept(accept.clone()).await;
    assert!(is_unknown(&repeated), "{repeated:?}");
    let_go(&server);
    let repeated = storage.records.accept(accept.clone()).await.unwrap();
    assert!(matches!(repeated, Accepted::Repeated(_)), "{repeated:?}");
    let earlier = storage.requests.earlier(accept).await.unwrap();
    assert_eq!(earlier, Some(repeated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_so_it_is_with_a_repeat_of_a_change() {
    let (server, storage) = open().await;
    let keep = Keep {
        once: once(),
        respond: Arc::new(|_| Ok("made".to_owned())),
    };
    let change = create_key("key");
    server.hold_commits().unwrap();
    let records = Arc::clone(&storage.records);
    let first = (change.clone(), Some(keep.clone()));
    let changing = tokio::spawn(async move { records.change(first.0, first.1).await });
    server.cut_off_a_commit().await.unwrap();
    let changed = changing.await.unwrap();
    assert!(is_unknown(&changed), "{changed:?}");
    let earlier = storage.requests.earlier_change(&keep.once).await;
    assert!(is_unknown(&earlier), "{earlier:?}");
    let again = storage
        .records
        .change(change.clone(), Some(keep.clone()))
        .await;
    assert!(is_unknown(&again), "{again:?}");
    let_go(&server);
    let expected = Changed::Repeated("made".to_owned());
    let earlier = storage.requests.earlier_change(&keep.once).await.unwrap();
    assert_eq!(earlier.as_ref(), Some(&expected));
    let again = storage.records.change(change, Some(keep)).await.unwrap();
    assert_eq!(again, expected);
}

/// It locks the log of its user, which is a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_an_inbox_that_finds_nothing_to_change_waits_for_the_standby_too() {
    let (server, storage) = open().await;
    storage.records.accept(to_anna()).await.unwrap();
    let (user, now) = (UserId::new("anna").unwrap(), Timestamp::now());
    let read_all = InboxAction::ReadAll;
    server.hold_commits().unwrap();
    for _ in 0..2 {
        let read = storage.logs.change(&user, &read_all, now).await;
        let is_unknown = read
            .as_ref()
            .is_err_and(tidings_notify::StoreError::may_have_been_done);
        assert!(is_unknown, "{read:?}");
    }
    let_go(&server);
    let read = storage.logs.change(&user, &read_all, now).await.unwrap();
    assert_eq!(read.changed, 0);
}

/// A repeat would wait for the disk otherwise, for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_is_confirmed_by_a_write_only_where_commits_wait_for_a_standby() {
    let server = PostgresServer::start().unwrap();
    let client = Config::new(&server.url()).unwrap().connect().await.unwrap();
    let writes = async || {
        client.batch_execute("BEGIN").await.unwrap();
        commit::confirm_in(&client).await.unwrap();
        let asked = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
        let has_written: bool = client.query_one(asked, &[]).await.unwrap().get(0);
        client.batch_execute("ROLLBACK").await.unwrap();
        has_written
    };
    assert!(!writes().await);
    server.hold_commits().unwrap();
    assert!(writes().await);
}
