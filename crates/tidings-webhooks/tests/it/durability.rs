//! "Accepted" survives a loss of power: a killed server cannot show it, the order of its system calls
//! can.

use std::sync::Arc;

use jiff::Timestamp;
use tidings_postgres::Config;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions as EngineOptions};
use tidings_stream::{ServiceConfig, Streams};
use tidings_test_support::{PostgresServer, TracedReply};
use tidings_webhooks::postgres::{PostgresOptions, PostgresStore, accept_in};
use tidings_webhooks::store::{AcceptedEvent, Addressed, StoredEndpoint};
use tidings_webhooks::{EndpointId, Owner, STREAM, Store};

use crate::support::event;

/// Commits that the application makes.
const COMMITS: usize = 5;

/// What of the write-ahead log was on disk each time that PostgreSQL reported a commit in which an
/// event was accepted. `setting` belongs to the session.
async fn commits_with(setting: &str) -> Vec<TracedReply> {
    let (server, trace) = PostgresServer::start_traced().unwrap();
    let config = Config::new(&server.url()).unwrap();
    let engine = PostgresEngine::open(config.clone(), EngineOptions::default());
    let streams = Streams::new(Arc::new(engine.await.unwrap()), ServiceConfig::default());
    let stream = streams.name(STREAM).unwrap();
    let store = PostgresStore::open(config.clone(), PostgresOptions::default())
        .await
        .unwrap();
    store.insert_endpoint(endpoint(), None, None).await.unwrap();

    let client = config.connect().await.unwrap();
    client.batch_execute(setting).await.unwrap();
    for number in 0..COMMITS {
        client.batch_execute("BEGIN").await.unwrap();
        let is_wanted = accept_in(&*client, &stream, &[event(number)]).await;
        assert!(is_wanted.unwrap());
        // The name of the column marks the reply: other sessions commit too.
        client
            .batch_execute("COMMIT; SELECT 1 AS accepted")
            .await
            .unwrap();
    }
    server.crash().unwrap();
    trace.replies("accepted", &["/pg_wal/0*"]).unwrap()
}

fn endpoint() -> StoredEndpoint {
    StoredEndpoint {
        id: EndpointId::from_i64(1),
        owner: Owner::Operator,
        settings: "{}".to_owned(),
        event_types: "[]".to_owned(),
        secrets: "[]".to_owned(),
        first_wait: None,
        disabled: None,
        removed: false,
        revision: 1,
        created_at: Timestamp::now(),
    }
}

fn is_durable(commit: &TracedReply) -> bool {
    commit.written > 0 && commit.unsynced.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_in_a_transaction_is_on_disk_when_postgres_reports_the_commit() {
    let commits = commits_with("").await;
    assert_eq!(commits.len(), COMMITS, "{commits:?}");
    assert!(commits.iter().all(is_durable), "{commits:?}");
}

/// The test above would see it if the commits did not wait for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_postgres_reports_before_it_is_on_disk_is_seen() {
    let commits = commits_with("SET synchronous_commit = off").await;
    assert_eq!(commits.len(), COMMITS, "{commits:?}");
    assert!(!commits.iter().all(is_durable), "{commits:?}");
}

/// The fan-out acknowledges its message after this, over another connection, and also after the server has
/// crashed and is there again. So it is not enough that a crash undoes later commits too.
#[tokio::test(flavor = "multi_thread")]
async fn regression_deliveries_and_deferred_events_survive_a_crash_of_postgres() {
    let server = PostgresServer::start().unwrap();
    // Nothing comes to the disk unless a commit waits for it.
    server
        .execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        .unwrap();
    server.execute("SELECT pg_reload_conf()").unwrap();
    let config = Config::new(&server.url()).unwrap();
    let open = || PostgresStore::open(config.clone(), PostgresOptions::default());
    let store = open().await.unwrap();
    store.insert_endpoint(endpoint(), None, None).await.unwrap();
    for session in ["on", "off"] {
        let own = format!("ALTER ROLE postgres SET synchronous_commit = '{session}'");
        server.execute(&own).unwrap();
        let store = open().await.unwrap();
        let (added, deferred) = (event(1), event(2));
        let addressed = Addressed {
            event: added.clone(),
            to: vec![(endpoint().id, Timestamp::now())],
        };
        store
            .add_deliveries(vec![addressed].into(), Timestamp::now())
            .await
            .unwrap();
        server.crash().unwrap();
        server.start_again().unwrap();
        let count = |table: &str, id: &str| {
            let count = format!("SELECT count(*) FROM {table} WHERE id = '{id}'");
            server.execute(&count).unwrap()
        };
        assert_eq!(count("tidings_webhook_event", added.id()), "1");

        let aside = AcceptedEvent {
            event: deferred.clone(),
            newest_endpoint: 1,
        };
        let store = open().await.unwrap();
        store.defer(vec![aside]).await.unwrap();
        server.crash().unwrap();
        server.start_again().unwrap();
        assert_eq!(count("tidings_webhook_deferred", deferred.id()), "1");
    }
}
