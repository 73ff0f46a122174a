//! The conformance suite, and what a suite of every backend cannot do.

mod repeats;

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{Draft, EventType, Payload, UserId};
use tidings_postgres::Config;
use tidings_test_support::{PostgresServer, Schema};
use tidings_webhooks::{EndpointSettings, NewEndpoint, Options, Owner, Webhooks};

use super::super::conformance::{self, Handles};
use super::super::{Accept, Accepted, Change, Changed, Storage, StorageError};

/// What another package wraps in errors of its own keeps its code, by which a batch is tried again.
#[tokio::test]
async fn regression_the_code_of_a_statement_is_found_behind_the_errors_of_other_packages() {
    let (schema, _handles) = open().await;
    let client = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("SELECT 1 / 0").await.unwrap_err();
    let stream = tidings_stream::StreamName::new("app", "default", "webhook-events");
    let message = tidings_stream::NewMessage::new("x");
    let failed = tidings_stream::postgres::publish_in(&*client, &stream.unwrap(), &[message]).await;
    let failed = tidings_webhooks::StoreError::backend(failed.unwrap_err());
    let error = super::StorageError::from(failed);
    let code = super::database_error(&error).and_then(tidings_postgres::Error::code);
    let code = code.map(tidings_postgres::tokio_postgres::error::SqlState::code);
    assert_eq!(code, Some("25P02"), "{error:?}");
}

#[tokio::test]
async fn regression_keys_of_another_schema_of_the_database_are_other_keys() {
    let (schema, _handles) = open().await;
    let (other, _others) = open().await;
    let key = crate::idempotency::IdempotencyKey::new("key").unwrap();
    let once = crate::idempotency::Once::new(key, "/v1/notifications", b"body");
    let elsewhere = Config::new(&other.url()).unwrap().connect().await.unwrap();
    elsewhere.batch_execute("BEGIN").await.unwrap();
    let claimed = super::requests::claim(&*elsewhere, &[&once]).await.unwrap();
    assert!(matches!(claimed[0], super::Known::New));
    let here = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    here.batch_execute("BEGIN").await.unwrap();
    let claimed = super::requests::claim(&*here, &[&once]).await.unwrap();
    assert!(matches!(claimed[0], super::Known::New));
    // Nothing is left that the schemas' end would wait for.
    for client in [here, elsewhere] {
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// Two handles that share nothing but the database, as two instances do.
async fn open() -> (Schema, Handles) {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let (first, second) = tokio::join!(
        super::open_in(config.clone(), None),
        super::open_in(config.clone(), None)
    );
    let handles = Handles {
        first: first.unwrap(),
        second: second.unwrap(),
    };
    (schema, handles)
}

/// Waits until a statement like this one waits for a lock.
async fn until_waiting(schema: &Schema, statement: &str) {
    let waits = "SELECT 1 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE $1 AND query NOT LIKE '%pg_stat_activity%'";
    let watching = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    while watching
        .query(waits, &[&statement])
        .await
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn regression_a_key_that_is_recorded_anew_while_old_ones_are_deleted_stays() {
    let (schema, handles) = open().await;
    let other = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    let old = "INSERT INTO tidings_server_request (key, fingerprint, events, accepted_at)
        VALUES ('key', '', '', now() - interval '25 hours')";
    other.batch_execute(old).await.unwrap();
    let anew = "BEGIN; UPDATE tidings_server_request SET accepted_at = now()";
    other.batch_execute(anew).await.unwrap();
    let records = Arc::clone(&handles.first.records);
    let cleaning = tokio::spawn(async move { records.clean().await });
    until_waiting(&schema, "DELETE FROM tidings_server_request%").await;
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(cleaning.await.unwrap().unwrap(), 0);
}

/// It is repeated after a crash, and would take long on a slow disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_the_deleting_of_old_keys_waits_for_no_disk_and_no_standby() {
    let server = PostgresServer::start().unwrap();
    let storage = super::open_in(Config::new(&server.url()).unwrap(), None)
        .await
        .unwrap();
    let old = "INSERT INTO tidings_server_request (key, fingerprint, events, accepted_at)
        VALUES ('key', '', '', now() - interval '25 hours')";
    server.execute(old).unwrap();
    server.hold_commits().unwrap();
    assert_eq!(storage.records.clean().await.unwrap(), 1);
}

fn create_key(name: &str) -> Change {
    let key = conformance::api_key(name, None);
    Change::CreateKey { key, limit: 10 }
}

async fn key_names(storage: &Storage) -> Vec<String> {
    let all = storage.api_keys.all().await.unwrap();
    all.keys.into_iter().map(|key| key.name).collect()
}

const LOCK_KEYS: &str = "BEGIN; LOCK TABLE tidings_server_api_key IN EXCLUSIVE MODE";

#[tokio::test]
async fn regression_a_change_that_is_dropped_in_the_middle_leaves_nothing_to_the_next_one() {
    let (schema, handles) = open().await;
    let other = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    other.batch_execute(LOCK_KEYS).await.unwrap();
    let records = Arc::clone(&handles.first.records);
    let dropped = tokio::spawn(async move { records.change(create_key("dropped"), None).await });
    until_waiting(&schema, "%INSERT INTO tidings_server_api_key%").await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    other.batch_execute("ROLLBACK").await.unwrap();
    let next = handles.first.records.change(create_key("next"), None).await;
    assert_eq!(next.unwrap(), Changed::Made(None));
    assert_eq!(key_names(&handles.second).await, ["next"]);
}

#[tokio::test]
async fn regression_changes_wait_only_so_long_for_those_before_them() {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let storage = super::open_in(config.clone(), None).await.unwrap();
    storage.close().await;
    let hasty = config.with_reply_limit(Duration::from_secs(1));
    let storage = super::open_in(hasty.clone(), None).await.unwrap();
    let other = hasty.connect().await.unwrap();
    other.batch_execute(LOCK_KEYS).await.unwrap();
    let changes = (0..8).map(|_| storage.records.change(create_key("key"), None));
    let changes = futures_util::future::join_all(changes).await;
    other.batch_execute("ROLLBACK").await.unwrap();
    let errors = changes.into_iter().map(Result::unwrap_err);
    let (sent, unsent): (Vec<_>, Vec<_>) =
        errors.partition(|error| super::database_error(error).is_some());
    // The second one may get its turn at the moment in which its time is over.
    assert!((1..=2).contains(&sent.len()), "{sent:?}");
    for error in sent.iter().chain(&unsent) {
        assert!(
            matches!(error, StorageError::Unavailable { .. }),
            "{error:?}"
        );
    }
}

/// The change waits for the lane, whose holder then waits for the delivery: the database ends one of the two.
#[tokio::test]
async fn a_change_that_ends_in_a_deadlock_is_made_again() {
    let (schema, handles) = open().await;
    let storage = &handles.first;
    let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
    let options = Options::default().with_schedule([Duration::from_secs(3600)]);
    let webhooks = Webhooks::start(store, streams, options).await.unwrap();
    let new = NewEndpoint::new(
        Owner::Operator,
        EndpointSettings::new("http://127.0.0.1:9/"),
    );
    let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
    let test = webhooks.prepare_test(endpoint.id).await.unwrap().unwrap();
    let tested = storage.records.change(Change::Operate(test), None).await;
    let Changed::Made(Some(delivery)) = tested.unwrap() else {
        panic!("a test has a delivery");
    };
    let other = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    let begin = "BEGIN; SELECT 1 FROM tidings_webhook_lane FOR UPDATE";
    other.batch_execute(begin).await.unwrap();
    let retry = Change::Operate(webhooks.prepare_retry(delivery.id));
    let records = Arc::clone(&storage.records);
    let changing = tokio::spawn(async move { records.change(retry, None).await });
    until_waiting(&schema, "%tidings_webhook_retry%").await;
    let cross = "UPDATE tidings_webhook_delivery SET due_at = due_at";
    // Which of the two is ended is the database's choice.
    let _ended = other.batch_execute(cross).await;
    other.batch_execute("ROLLBACK").await.unwrap();
    let changed = changing.await.unwrap().unwrap();
    assert!(matches!(changed, Changed::Made(Some(_))), "{changed:?}");
}

conformance::suite!(open(), work_of_one_instance_is_done_by_one_at_a_time);

fn to_anna() -> Accept {
    let user = UserId::new("anna").unwrap();
    let event_type = EventType::new("count").unwrap();
    let draft = Draft::new(user, event_type, Payload::from_value(&1).unwrap());
    Accept {
        drafts: vec![draft],
        once: None,
    }
}

fn is_unknown<T>(outcome: &Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::OutcomeUnknown { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_not_confirmed_is_looked_up() {
    let server = PostgresServer::start().unwrap();
    let storage = super::open_in(Config::new(&server.url()).unwrap(), None)
        .await
        .unwrap();
    server.hold_commits().unwrap();
    let records = Arc::clone(&storage.records);
    let accepting = tokio::spawn(async move { records.accept(to_anna()).await });
    server.cut_off_a_commit().await.unwrap();
    server.let_commits_go().unwrap();
    let accepted = accepting.await.unwrap().unwrap();
    let Accepted::Stored { events, .. } = accepted else {
        panic!("expected stored notifications, got {accepted:?}")
    };
    let user = UserId::new("anna").unwrap();
    let found = storage.logs.find(&user, events[0].id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&events[0]));
}

/// It can be read, and the standby that becomes the primary lacks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_the_standby_may_lack_is_not_confirmed_after_a_cut_either() {
    let server = PostgresServer::start().unwrap();
    let hasty = Config::new(&server.url()).unwrap();
    let hasty = hasty.with_reply_limit(Duration::from_secs(2));
    let storage = super::open_in(hasty, None).await.unwrap();
    server.hold_commits().unwrap();
    let records = Arc::clone(&storage.records);
    let accepting = tokio::spawn(async move { records.accept(to_anna()).await });
    server.cut_off_a_commit().await.unwrap();
    let accepted = accepting.await.unwrap();
    assert!(is_unknown(&accepted), "{accepted:?}");
}

/// Each one that waited would keep a session, until there are no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_while_a_commit_waits_for_the_standby_no_other_one_joins_it() {
    let server = PostgresServer::start().unwrap();
    let hasty = Config::new(&server.url()).unwrap();
    let hasty = hasty.with_reply_limit(Duration::from_secs(1));
    let storage = super::open_in(hasty, None).await.unwrap();
    server.hold_commits().unwrap();
    let records = &storage.records;
    let change = |id: &str| {
        let key = conformance::api_key(id, None);
        records.change(Change::CreateKey { key, limit: 10 }, None)
    };
    let accepted = records.accept(to_anna()).await;
    assert!(is_unknown(&accepted), "{accepted:?}");
    let changed = change("first").await;
    assert!(is_unknown(&changed), "{changed:?}");
    // Not those of the background, which are single statements.
    let held = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    assert_eq!(server.execute(held).unwrap(), "2");
    for _ in 0..3 {
        let accepted = records.accept(to_anna()).await;
        let changed = change("second").await;
        for error in [accepted.err(), changed.err()] {
            assert!(
                matches!(error, Some(StorageError::Unavailable { .. })),
                "{error:?}"
            );
        }
    }
    assert_eq!(server.execute(held).unwrap(), "2");
    server.let_commits_go().unwrap();
    while server.held_commits().unwrap() > 0 {}
    records.accept(to_anna()).await.unwrap();
    change("second").await.unwrap();
    // The first of each was done after all.
    assert_eq!(storage.api_keys.all().await.unwrap().keys.len(), 2);
}

/// A caller that was told that nothing is stored would make another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_change_that_is_not_confirmed_may_have_been_made() {
    let server = PostgresServer::start().unwrap();
    let storage = super::open_in(Config::new(&server.url()).unwrap(), None)
        .await
        .unwrap();
    server.hold_commits().unwrap();
    let key = conformance::api_key("new", None);
    let id = key.id.clone();
    let change = Change::CreateKey { key, limit: 10 };
    let records = Arc::clone(&storage.records);
    let changing = tokio::spawn(async move { records.change(change, None).await });
    server.cut_off_a_commit().await.unwrap();
    let changed = changing.await.unwrap();
    assert!(is_unknown(&changed), "{changed:?}");
    let all = storage.api_keys.all().await.unwrap();
    assert_eq!(all.keys.len(), 1);
    let keys = Arc::clone(&storage.api_keys);
    let removing = tokio::spawn(async move { keys.remove(&id).await });
    server.cut_off_a_commit().await.unwrap();
    let removed = removing.await.unwrap();
    assert!(is_unknown(&removed), "{removed:?}");
    assert!(storage.api_keys.all().await.unwrap().keys.is_empty());
}
