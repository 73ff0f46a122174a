use std::time::Duration;

use futures_util::future::join_all;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Config, Database, Error};
use tidings_test_support::{Proxy, soon};

use super::support::{database, limited, number, url};

#[tokio::test]
async fn all_share_one_connection() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let database = database(proxy.url());
    let numbers = join_all((0..100).map(|_| number(&database, "SELECT 1::bigint"))).await;
    assert_eq!(numbers, [1; 100]);
    assert_eq!(proxy.accepted(), 1);
    database.disconnect();
    soon("the connection to close", proxy.deserted()).await;
    assert_eq!(number(&database, "SELECT 2::bigint").await, 2);
    drop(database);
    soon("the connection to close", proxy.deserted()).await;
}

#[tokio::test]
async fn a_refusal_leaves_the_connection() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let database = database(proxy.url());
    let refused = database.run(|client| async move { client.batch_execute("SELEKT").await });
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::SYNTAX_ERROR));
    assert!(!refused.may_have_been_done());
    assert_eq!(number(&database, "SELECT 1::bigint").await, 1);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_replaced_and_its_statements_may_have_been_done() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let database = limited(proxy.url(), Duration::from_secs(4));
    assert_eq!(number(&database, "SELECT 1::bigint").await, 1);
    proxy.freeze();
    let silent = database.run(|client| async move { client.batch_execute("").await });
    let silent = soon("the limit", silent).await.unwrap_err();
    assert!(silent.may_have_been_done(), "{silent:?}");
    assert_eq!(number(&database, "SELECT 1::bigint").await, 1);
    // The other one has asked the server to cancel the statement.
    assert_eq!(proxy.accepted(), 3);
}

#[tokio::test]
async fn a_server_that_ends_the_connection_leaves_its_statements_in_doubt() {
    let database = database(&url());
    let terminate = "SELECT pg_terminate_backend(pg_backend_pid())";
    let ended = database.run(|client| async move { client.batch_execute(terminate).await });
    let ended = soon("the end", ended).await.unwrap_err();
    assert!(ended.may_have_been_done(), "{ended:?}");
    assert_eq!(number(&database, "SELECT 1::bigint").await, 1);
}

#[tokio::test]
async fn without_a_connection_nothing_was_done() {
    let proxy = Proxy::start(&url()).await.unwrap();
    proxy.block();
    let database = database(proxy.url());
    let asked = database.run(|client| async move { client.batch_execute("").await });
    let unsent = soon("a reply", asked).await.unwrap_err();
    assert!(matches!(unsent, Error::Unsent(_)), "{unsent:?}");
    assert!(!unsent.may_have_been_done());
    proxy.restore();
    assert_eq!(number(&database, "SELECT 1::bigint").await, 1);
}

#[tokio::test]
async fn connecting_to_a_silent_server_ends_at_the_limit() {
    let silent = tidings_test_support::Unreachable::silent().await.unwrap();
    let url = format!("postgres://postgres@{}/postgres", silent.address());
    let config = Config::new(&url).unwrap();
    let database = Database::new(config.with_reply_limit(Duration::from_millis(50)));
    let asked = database.run(|client| async move { client.batch_execute("").await });
    let unsent = soon("the limit", asked).await.unwrap_err();
    assert!(matches!(unsent, Error::Unsent(_)), "{unsent:?}");
}

#[tokio::test]
async fn the_application_has_a_name() {
    for (url, expected) in [
        (url(), "tidings"),
        (format!("{}?application_name=shop", url()), "shop"),
    ] {
        let client = Config::new(&url).unwrap().connect().await.unwrap();
        let row = client.query_one("SHOW application_name", &[]).await;
        assert_eq!(row.unwrap().get::<_, &str>(0), expected);
    }
}

/// As an application is told to try again, or is not.
#[tokio::test]
async fn what_passes_is_no_mistake_of_the_statement() {
    let database = database(&url());
    let cases = [
        ("40P01", true, false),
        ("53100", false, true),
        ("53200", true, false),
        ("55P03", true, false),
        ("57014", true, false),
        ("58030", true, false),
        ("22012", false, false),
        ("42P01", false, false),
    ];
    for (code, may_pass, is_full) in cases {
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$");
        let client = database.config().connect().await.unwrap();
        let refused = Error::of_statement(client.batch_execute(&raise).await.unwrap_err());
        assert_eq!(refused.is_unavailable(), may_pass, "{code}");
        assert_eq!(refused.is_full(), is_full, "{code}");
    }
}
