//! A statement that the client has given up does not commit later.

use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Client, Config, Database, Error};
use tidings_test_support::{PgBouncer, PostgresServer, Proxy, soon};
use tokio::net::TcpListener;

use crate::postgres::support::{execute, number};

const LIMIT: Duration = Duration::from_secs(2);
const INSERT: &str = "INSERT INTO item VALUES (1)";
const COUNT: &str = "SELECT count(*) FROM item";
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

fn impatient(url: &str) -> Database {
    Database::new(Config::new(url).unwrap().with_reply_limit(LIMIT))
}

/// A server with a table that is locked until the client is dropped.
async fn locked() -> (PostgresServer, Client) {
    let server = PostgresServer::start().unwrap();
    server.execute("CREATE TABLE item (n bigint)").unwrap();
    let holder = Config::new(&server.url()).unwrap().connect().await.unwrap();
    let lock = "BEGIN; LOCK TABLE item IN EXCLUSIVE MODE";
    holder.batch_execute(lock).await.unwrap();
    (server, holder)
}

async fn insert(database: &Database) -> Result<(), Error> {
    let inserted = database.run(|client| async move { client.batch_execute(INSERT).await });
    soon("a reply", inserted).await
}

/// Ends the lock, and lets whatever waits for it run.
async fn unlock(server: &PostgresServer, holder: Client) -> i64 {
    drop(holder);
    let database = Database::new(Config::new(&server.url()).unwrap());
    execute(&database, "BEGIN; LOCK TABLE item; COMMIT").await;
    number(&database, COUNT).await
}

#[tokio::test]
async fn regression_a_statement_that_waits_for_too_long_is_cancelled_and_not_done() {
    let (server, holder) = locked().await;
    let database = impatient(&server.url());
    for _ in 0..5 {
        let refused = insert(&database).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(&SqlState::QUERY_CANCELED),
            "{refused:?}"
        );
        assert!(!refused.may_have_been_done());
    }
    // No session is left behind.
    let watching = Database::new(Config::new(&server.url()).unwrap());
    assert_eq!(number(&watching, WAITING).await, 0);
    assert_eq!(unlock(&server, holder).await, 0);
    insert(&database).await.unwrap();
}

#[tokio::test]
async fn regression_a_statement_whose_client_is_cut_off_is_ended_by_the_server() {
    let (server, holder) = locked().await;
    let proxy = Proxy::start(&server.url()).await.unwrap();
    let database = impatient(proxy.url());
    let watching = Database::new(Config::new(&server.url()).unwrap());
    let (inserted, ()) = tokio::join!(insert(&database), async {
        soon("the statement to wait", async {
            while number(&watching, WAITING).await == 0 {}
        })
        .await;
        proxy.block();
    });
    assert!(inserted.unwrap_err().may_have_been_done());
    soon("the statement to end", async {
        while number(&watching, WAITING).await != 0 {}
    })
    .await;
    assert_eq!(unlock(&server, holder).await, 0);
}

#[tokio::test]
async fn behind_a_pooler_it_is_cancelled_as_well_and_nothing_is_set_on_shared_sessions() {
    let (server, holder) = locked().await;
    let pooler = PgBouncer::start(&server, 1).await.unwrap();
    let database = impatient(&pooler.url());
    for _ in 0..3 {
        let refused = insert(&database).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(&SqlState::QUERY_CANCELED),
            "{refused:?}"
        );
    }
    let setting = database.run(|client| async move {
        let shown = client.query_typed_one("SELECT current_setting('statement_timeout')", &[]);
        shown.await?.try_get::<_, String>(0)
    });
    assert_eq!(setting.await.unwrap(), "0");
    assert_eq!(unlock(&server, holder).await, 0);
}

/// Where the server limits no statement, the client cancels what it has given up.
#[tokio::test]
async fn regression_a_statement_without_a_limit_of_the_server_is_cancelled_by_its_client() {
    let (server, holder) = locked().await;
    let unlimited = format!("{}?options=-cstatement_timeout%3D0", server.url());
    let database = impatient(&unlimited);
    for _ in 0..3 {
        let refused = insert(&database).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(&SqlState::QUERY_CANCELED),
            "{refused:?}"
        );
    }
    let watching = Database::new(Config::new(&server.url()).unwrap());
    assert_eq!(number(&watching, WAITING).await, 0);
    assert_eq!(unlock(&server, holder).await, 0);
}

/// A host of the URL that takes the request to cancel and says nothing keeps neither the request from the server
/// nor the reply from the client.
#[tokio::test]
async fn regression_a_silent_host_hides_no_outcome() {
    let (server, holder) = locked().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let hosts = format!("@127.0.0.1:{port},");
    let url = server.url().replacen('@', &hosts, 1);
    let database = impatient(&format!("{url}?options=-cstatement_timeout%3D0"));
    let refusing = async {
        drop(silent.accept().await.unwrap());
        silent.accept().await.unwrap()
    };
    let (inserted, _held) = tokio::join!(insert(&database), refusing);
    let refused = inserted.unwrap_err();
    assert_eq!(
        refused.code(),
        Some(&SqlState::QUERY_CANCELED),
        "{refused:?}"
    );
    assert_eq!(unlock(&server, holder).await, 0);
}

/// A client that is cut off, or whose process is frozen, sends nothing more and closes nothing.
#[tokio::test]
async fn regression_a_transaction_whose_client_sends_nothing_more_is_ended_with_its_locks() {
    let server = PostgresServer::start().unwrap();
    server.execute("CREATE TABLE item (n bigint)").unwrap();
    let config = Config::new(&server.url()).unwrap().with_reply_limit(LIMIT);
    let silent = config.connect().await.unwrap();
    silent.batch_execute(&config.begin()).await.unwrap();
    let lock = "LOCK TABLE item IN EXCLUSIVE MODE";
    silent.batch_execute(lock).await.unwrap();
    let patient = Database::new(
        Config::new(&server.url())
            .unwrap()
            .with_reply_limit(LIMIT * 10),
    );
    soon("the lock", insert(&patient)).await.unwrap();
    silent.batch_execute("COMMIT").await.unwrap_err();
}
