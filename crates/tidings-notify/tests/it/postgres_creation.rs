//! Logs that another transaction on PostgreSQL is creating.

use std::time::Duration;

use tidings_notify::postgres::{CallOutcome, PostgresOptions, PostgresStore, append_calls_in};
use tidings_notify::{Draft, Store, StoreError};
use tokio::task::JoinSet;

use crate::database::Schema;
use crate::postgres::{Application, draft_of, soon, transactions};
use crate::support::user;

/// As many drafts, each for another user.
fn drafts(prefix: &str, count: u64) -> Vec<Draft> {
    let numbers = 0..count;
    numbers
        .map(|number| draft_of(&format!("{prefix}-{number}"), number))
        .collect()
}

#[tokio::test]
async fn regression_a_transaction_that_creates_many_logs_delays_only_their_users() {
    for end in ["COMMIT", "ROLLBACK"] {
        let schema = Schema::create().await;
        let store = schema.store().await;
        store.append(vec![draft_of("old", 0)]).await.unwrap();
        let held = drafts("held", 200);
        let slow = Application::begin(&schema.config(), &held).await;
        let mut waiting = JoinSet::new();
        for draft in held {
            let store = store.clone();
            waiting.spawn(async move { store.append(vec![draft]).await });
        }
        let appends = async {
            for number in 1..=50 {
                let new = draft_of(&format!("new-{number}"), 0);
                store.append(vec![draft_of("old", number)]).await.unwrap();
                store.append(vec![new]).await.unwrap();
            }
        };
        soon("the appends of others", appends).await;
        assert!(waiting.try_join_next().is_none());
        slow.end(end).await;
        let appended = soon("the appends that waited", waiting.join_all()).await;
        let expected = if end == "COMMIT" { 2 } else { 1 };
        for events in appended {
            assert_eq!(events.unwrap()[0].id.seq, expected);
        }
    }
}

/// The first call of the batch is the one that waits.
#[tokio::test]
async fn regression_others_share_a_transaction_beside_a_log_that_is_being_created() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let held = draft_of("held", 0);
    let slow = Application::begin(&schema.config(), std::slice::from_ref(&held)).await;
    let append = |draft| {
        let store = store.clone();
        tokio::spawn(async move { store.append(vec![draft]).await })
    };
    let waiting = append(held);
    let others: Vec<_> = drafts("other", 300).into_iter().map(append).collect();
    for other in others {
        soon("an append", other).await.unwrap().unwrap();
    }
    assert!(!waiting.is_finished());
    let spent = transactions(&schema).await;
    assert!(spent < 100, "{spent} transactions for 300 appends");
    slow.end("COMMIT").await;
    soon("the append", waiting).await.unwrap().unwrap();
}

/// Each transaction gets further, and none waits for all of them. The last user is the one whose log is not held.
#[tokio::test]
async fn calls_for_logs_that_are_being_created_are_found_out_some_at_a_time() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let held = drafts("held", 300);
    let slow = Application::begin(&schema.config(), &held).await;
    let client = schema.config().connect().await.unwrap();
    let mut left = held;
    left.push(draft_of("zoe", 0));
    let mut rounds = 0;
    while !left.is_empty() {
        let calls: Vec<&[Draft]> = left.chunks(1).collect();
        client.batch_execute("BEGIN").await.unwrap();
        let outcomes = append_calls_in(&*client, &calls).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let before = left.len();
        let mut outcomes = outcomes.into_iter();
        left.retain(|draft| {
            let user = draft.user().clone();
            match outcomes.next().unwrap() {
                CallOutcome::Untried => return true,
                CallOutcome::Appended(_) => assert_eq!(user.as_str(), "zoe"),
                outcome => assert_eq!(outcome, CallOutcome::BeingCreated(vec![user])),
            }
            false
        });
        assert!(left.len() < before);
        rounds += 1;
    }
    assert!(rounds > 1, "all 300 in one transaction");
    assert_eq!(store.head(&user("zoe")).await.unwrap().top_seq, 1);
    slow.end("ROLLBACK").await;
}

#[tokio::test]
async fn a_caller_that_waits_too_long_for_a_log_that_is_being_created_gets_an_error() {
    let schema = Schema::create().await;
    // The first one makes the tables, for which it has more time.
    schema.store().await;
    let config = schema.config().with_reply_limit(Duration::from_secs(4));
    let store = PostgresStore::open(config, PostgresOptions::default());
    let store = store.await.unwrap();
    let held = drafts("held", 40);
    let slow = Application::begin(&schema.config(), &held).await;
    let refused = held.iter().map(|draft| store.append(vec![draft.clone()]));
    for refused in futures_util::future::join_all(refused).await {
        assert!(matches!(refused, Err(StoreError::Locked)), "{refused:?}");
    }
    slow.end("ROLLBACK").await;
    let stored = store.append(held).await.unwrap();
    assert!(stored.iter().all(|event| event.id.seq == 1));
}
