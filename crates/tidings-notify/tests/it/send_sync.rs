//! Every public type, and every future, may go to another thread.

use std::sync::Arc;

use tidings_notify::postgres::PostgresStore;
use tidings_notify::presence::postgres::PostgresPresence;
use tidings_notify::presence::redis::RedisPresence;
use tidings_notify::presence::{Registration, Tracker, Watch};
use tidings_notify::redis::RedisStore;
use tidings_notify::sqlite::SqliteStore;
use tidings_notify::{
    Error, Event, InboxAction, Item, MAX_PAGE_BYTES, MemoryPresence, MemoryStore, Notifier,
    NotifierBuilder, Presence, Router, Since, Store, StoreError, Subscription,
};

use crate::support::{ann, draft};

fn assert_send_sync<T: Send + Sync>() {}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn types_are_send_and_sync() {
    assert_send_sync::<Notifier>();
    assert_send_sync::<NotifierBuilder>();
    assert_send_sync::<Subscription>();
    assert_send_sync::<(Tracker, Registration, Watch)>();
    assert_send_sync::<(PostgresPresence, RedisPresence, RedisStore)>();
    assert_send_sync::<(Arc<dyn Store>, MemoryStore, PostgresStore, SqliteStore)>();
    assert_send_sync::<(Arc<dyn Presence>, MemoryPresence, Arc<dyn Router>)>();
    assert_send_sync::<(Event, Item, Error, StoreError)>();
}

#[tokio::test]
async fn futures_are_send() {
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    assert_send(notifier.push(draft(1))).await.unwrap();
    assert_send(notifier.push_multi([ann()], draft(2)))
        .await
        .unwrap();
    let mut stream = assert_send(notifier.subscribe(ann(), Since::Start))
        .await
        .unwrap();
    assert_send(stream.next()).await.unwrap();
    assert_send(stream.next_batch(2, MAX_PAGE_BYTES))
        .await
        .unwrap();
    assert_send(notifier.change(&ann(), &InboxAction::ReadAll))
        .await
        .unwrap();
    assert_send(notifier.close()).await.unwrap();
}
