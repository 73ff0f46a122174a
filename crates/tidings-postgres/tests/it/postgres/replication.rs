//! A commit that a synchronous standby does not have is not reported as done.

use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Config, Connections, Database, Error, Sessions};
use tidings_test_support::{PgBouncer, PostgresServer, soon};

use crate::postgres::support::{limited, number};

const LIMIT: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(600);
const INSERT: &str = "INSERT INTO item VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM item";

/// A server whose standby is away.
fn held() -> PostgresServer {
    let server = PostgresServer::start().unwrap();
    server.execute("CREATE TABLE item (n bigint)").unwrap();
    server.hold_commits().unwrap();
    server
}

async fn insert(database: &Database) -> Result<(), Error> {
    let inserted = database.run(|client| async move { client.batch_execute(INSERT).await });
    soon("a reply", inserted).await
}

fn is_unknown(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(Error::NoReply(_)))
}

#[tokio::test]
async fn regression_a_statement_whose_wait_for_the_standby_was_cancelled_may_be_missing_there() {
    let server = held();
    let database = limited(&server.url(), LIMIT);
    for _ in 0..2 {
        let inserted = insert(&database).await;
        assert!(is_unknown(&inserted), "{inserted:?}");
    }
    // None of them waits on with a session of its own.
    assert_eq!(server.held_commits().unwrap(), 0);
    assert_eq!(number(&database, COUNT).await, 2);
    server.let_commits_go().unwrap();
    insert(&limited(&server.url(), PATIENT)).await.unwrap();
}

#[tokio::test]
async fn regression_so_it_is_behind_a_pooler() {
    let server = held();
    let pooler = PgBouncer::start(&server, 1).await.unwrap();
    let inserted = insert(&limited(&pooler.url(), LIMIT)).await;
    assert!(is_unknown(&inserted), "{inserted:?}");
}

#[tokio::test]
async fn regression_so_it_is_in_a_transaction_of_its_own() {
    let server = held();
    let serializable = "?options=-cdefault_transaction_isolation%3Dserializable";
    let database = limited(&format!("{}{serializable}", server.url()), LIMIT);
    let sessions = Sessions::of(&database).await.unwrap();
    let connections = Connections::new(database, 1, sessions);
    let inserted = soon("a reply", connections.query(INSERT, &[])).await;
    assert!(is_unknown(&inserted.map(drop)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_wait_that_an_administrator_cancels_confirms_nothing() {
    let server = held();
    let database = limited(&server.url(), PATIENT);
    let inserting = tokio::spawn(async move { insert(&database).await });
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep'";
    while server.execute(cancel).unwrap() == "0" {}
    let inserted = inserting.await.unwrap();
    assert!(is_unknown(&inserted), "{inserted:?}");
}

#[tokio::test]
async fn regression_a_commit_is_not_cancelled_and_waits_for_the_standby_on_its_own() {
    let server = held();
    let database = limited(&server.url(), LIMIT);
    let committed = database.run(|client| async move {
        client.batch_execute("BEGIN").await?;
        client.batch_execute(INSERT).await?;
        let _committing = client.committing();
        client.batch_execute("COMMIT").await
    });
    let committed = soon("a reply", committed).await;
    assert!(is_unknown(&committed), "{committed:?}");
    assert_eq!(server.held_commits().unwrap(), 1);
    assert_eq!(number(&database, COUNT).await, 0);
    server.let_commits_go().unwrap();
    soon("the commit", async {
        while number(&database, COUNT).await == 0 {}
    })
    .await;
}

/// Statements before the commit are cancelled as ever.
#[tokio::test]
async fn a_statement_of_a_transaction_is_cancelled_until_it_commits() {
    let server = PostgresServer::start().unwrap();
    let database = Database::new(Config::new(&server.url()).unwrap().with_reply_limit(LIMIT));
    let late = database.run(|client| async move {
        client.batch_execute("BEGIN").await?;
        drop(client.committing());
        client.batch_execute("SELECT pg_sleep(600)").await
    });
    let late = soon("a reply", late).await.unwrap_err();
    assert_eq!(late.code(), Some(&SqlState::QUERY_CANCELED), "{late:?}");
}
