//! Several connections, each for one statement at a time.

use std::time::Duration;

use tidings_postgres::{Client, Config, Connections, Database, Error, Sessions};
use tidings_test_support::soon;

use crate::postgres::support::{database, execute, number, schema};

const LOCK: &str = "SELECT n FROM item WHERE n = 1 FOR UPDATE";
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query LIKE '%item%' AND pid <> pg_backend_pid()
        AND application_name = current_setting('application_name')";

/// Connections to a schema with a table of its own, and the URL that leads there.
async fn connections(name: &str, count: usize, options: &str) -> (Connections, String) {
    let url = format!("{}&application_name={name}{options}", schema(name).await);
    let made = database(&url);
    execute(
        &made,
        "CREATE TABLE item AS SELECT n FROM generate_series(1, 2) n",
    )
    .await;
    let config = Config::new(&url).unwrap();
    let database = Database::new(config.with_reply_limit(Duration::from_secs(20)));
    let sessions = Sessions::of(&database).await.unwrap();
    let sessions = sessions.with_prepared_statements();
    (Connections::new(database, count, sessions), url)
}

/// A client whose transaction has locked the first row.
async fn holder(url: &str) -> Client {
    let holder = Config::new(url).unwrap().connect().await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    holder.batch_execute(LOCK).await.unwrap();
    holder
}

async fn until_one_waits(url: &str) {
    let watching = database(url);
    soon("the statement to wait", async {
        while number(&watching, WAITING).await != 1 {}
    })
    .await;
}

#[tokio::test]
async fn a_call_that_waits_delays_no_other_and_closing_waits_for_it() {
    let (connections, url) = connections("pool_wait", 2, "").await;
    let holder = holder(&url).await;
    let waits = connections.row(LOCK, &[]);
    let others = async {
        until_one_waits(&url).await;
        soon("another", connections.row("SELECT 1", &[]))
            .await
            .unwrap();
        connections.close();
        let refused = connections.query("SELECT 1", &[]).await.unwrap_err();
        assert!(matches!(refused, Error::Closed), "{refused:?}");
        let closed = tokio::time::timeout(Duration::from_millis(50), connections.closed());
        closed.await.unwrap_err();
        drop(holder);
        soon("the end of the call", connections.closed()).await;
    };
    let (done, ()) = tokio::join!(waits, others);
    done.unwrap();
    // Neither connection is open any more.
    let watching = database(&url);
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'pool_wait' AND pid <> pg_backend_pid()";
    soon("the connections to close", async {
        while number(&watching, open).await != 0 {}
    })
    .await;
}

#[tokio::test]
async fn the_connection_of_a_call_that_was_dropped_is_the_last_to_be_used() {
    let (connections, url) = connections("pool_dropped", 2, "").await;
    let holder = holder(&url).await;
    {
        let waits = connections.row(LOCK, &[]);
        tokio::select! {
            biased;
            row = waits => panic!("the row is locked: {row:?}"),
            () = until_one_waits(&url) => {}
        }
    }
    // The server still runs what was dropped.
    for _ in 0..3 {
        soon("another", connections.row("SELECT 1", &[]))
            .await
            .unwrap();
    }
    let waiting = database(&url);
    assert_eq!(number(&waiting, WAITING).await, 1);
    drop(holder);
}

#[tokio::test]
async fn a_statement_that_was_ended_by_a_deadlock_is_tried_again() {
    let (connections, url) = connections("pool_deadlock", 1, "").await;
    // The other way round.
    let both = "SELECT n FROM item ORDER BY n DESC FOR UPDATE";
    loop {
        let holder = holder(&url).await;
        let (done, is_other) = tokio::join!(connections.query(both, &[]), async {
            until_one_waits(&url).await;
            let second = "SELECT n FROM item WHERE n = 2 FOR UPDATE";
            let ended = soon("the other's end", holder.batch_execute(second)).await;
            holder.batch_execute("COMMIT").await.unwrap();
            ended.is_ok()
        });
        assert_eq!(done.unwrap().len(), 2);
        // The server ends the one that has waited for its deadlock timeout first, which is not the one
        // that is meant if this process was slow.
        if is_other {
            break;
        }
    }
}

#[tokio::test]
async fn a_statement_sees_what_was_committed_while_it_waited_whatever_the_default_is() {
    let options = "&options=-cdefault_transaction_isolation%3Dserializable";
    let (connections, _) = connections("pool_isolation", 1, options).await;
    let isolation = "SELECT current_setting('transaction_isolation')";
    let row = connections.row(isolation, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "read committed");
}

#[tokio::test]
async fn statements_that_the_session_has_forgotten_are_prepared_again() {
    let (connections, _) = connections("pool_prepared", 1, "").await;
    for _ in 0..2 {
        let row = connections.row("SELECT 7", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7);
        connections.query("DEALLOCATE ALL", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn no_row_is_an_error_where_there_must_be_one() {
    let (connections, _) = connections("pool_row", 1, "").await;
    let none = "SELECT n FROM item WHERE n = 3";
    assert!(connections.query(none, &[]).await.unwrap().is_empty());
    let missing = connections.row(none, &[]).await.unwrap_err();
    assert!(matches!(missing, Error::NoRow), "{missing:?}");
}
