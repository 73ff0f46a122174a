use std::sync::Arc;
use std::time::Duration;

use tidings_notify::postgres::append_in;
use tidings_notify::{EventType, Payload};
use tidings_postgres::{Client, Config};
use tidings_test_support::Schema;
use tokio::task::JoinSet;

use super::*;
use crate::Storage;

fn draft(name: &str) -> Draft {
    let user = UserId::new(name).unwrap();
    let payload = Payload::from_value(&1).unwrap();
    Draft::new(user, EventType::new("count").unwrap(), payload)
}

fn drafts(prefix: &str, count: usize) -> Vec<Draft> {
    let numbers = 0..count;
    numbers
        .map(|number| draft(&format!("{prefix}-{number}")))
        .collect()
}

/// Begins to accept requests of one draft each.
fn accept_each(storage: &Storage, drafts: Vec<Draft>) -> JoinSet<Reply> {
    let accept = |draft| {
        let records = Arc::clone(&storage.records);
        async move {
            let drafts = vec![draft];
            records.accept(Accept { drafts, once: None }).await
        }
    };
    drafts.into_iter().map(accept).collect()
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, work).await.expect(what)
}

/// A storage, and an application that has created the logs of these drafts and not ended its transaction.
async fn beside_a_creation(drafts: &[Draft]) -> (Schema, Storage, Client) {
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let config = config.with_reply_limit(Duration::from_secs(60));
    let storage = super::super::open_in(config.clone(), None).await.unwrap();
    let application = config.connect().await.unwrap();
    application.batch_execute("BEGIN").await.unwrap();
    append_in(&*application, drafts).await.unwrap();
    (schema, storage, application)
}

/// How many transactions have stored the events.
async fn transactions(schema: &Schema) -> i64 {
    let client = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    let count = "SELECT count(DISTINCT xmin::text) FROM tidings_notify_event";
    client.query_one(count, &[]).await.unwrap().get(0)
}

/// The first request of the batch is the one that waits.
#[tokio::test]
async fn regression_others_share_a_transaction_beside_a_log_that_is_being_created() {
    let (schema, storage, application) = beside_a_creation(&[draft("held")]).await;
    let mut waiting = accept_each(&storage, vec![draft("held")]);
    let others = accept_each(&storage, drafts("other", 300));
    for accepted in soon("the others", others.join_all()).await {
        accepted.unwrap();
    }
    assert!(waiting.try_join_next().is_none());
    let spent = transactions(&schema).await;
    assert!(spent < 100, "{spent} transactions for 300 requests");
    application.batch_execute("COMMIT").await.unwrap();
    let waited = soon("the one that waits", waiting.join_next()).await;
    waited.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_transaction_that_creates_many_logs_delays_only_their_users() {
    let held = drafts("held", 200);
    let (_schema, storage, application) = beside_a_creation(&held).await;
    let mut waiting = accept_each(&storage, held);
    for draft in drafts("other", 50) {
        let accepted = accept_each(&storage, vec![draft]).join_all();
        let accepted = soon("the request of another", accepted).await;
        for accepted in accepted {
            accepted.unwrap();
        }
    }
    assert!(waiting.try_join_next().is_none());
    application.batch_execute("COMMIT").await.unwrap();
    for accepted in soon("those that wait", waiting.join_all()).await {
        accepted.unwrap();
    }
}
