//! "Accepted" survives a loss of power: a killed server cannot show it, the order of its system calls
//! can.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_postgres::Config;
use tidings_sqlite::Database;
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{PostgresEngine, PostgresOptions as EngineOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{MemoryEngine, ServiceConfig, Streams};
use tidings_test_support::{DiskTrace, PostgresServer, TracedReply};
use tidings_webhooks::postgres::{PostgresOptions, PostgresStore, accept_in};
use tidings_webhooks::sqlite::SqliteStore;
use tidings_webhooks::store::{AcceptedEvent, Addressed, StoredEndpoint};
use tidings_webhooks::{
    EndpointId, EndpointSettings, FanOutLag, NewEndpoint, Owner, STREAM, Store, Webhooks,
};

use crate::support::{event, schedule, soon};

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

/// The variable that says to a child, which is this test binary again, where its files are.
const CHILD: &str = "TIDINGS_WEBHOOKS_TEST_FOLDER";

/// The store of a child: its engine is on the same file, on another one, or in memory.
async fn store_and_engine(folder: &Path, engine: &str) -> (Arc<dyn Store>, Arc<dyn Engine>) {
    let open = |file| Database::open(folder.join(file), &tidings_sqlite::Options::default());
    let database = open("webhooks.db").unwrap();
    let store = SqliteStore::open(database.clone()).await.unwrap();
    let on = async |database| SqliteEngine::open(database).await.unwrap();
    let engine: Arc<dyn Engine> = match engine {
        "same" => Arc::new(on(database).await),
        "other" => Arc::new(on(open("streams.db").unwrap()).await),
        _ => Arc::new(MemoryEngine::new()),
    };
    (Arc::new(store), engine)
}

/// Gives the store an event to deliver and one to defer, and says so each time that it returns. Nothing else is written
/// meanwhile: nothing is due, and leases are long.
async fn add_and_defer(folder: &Path, engine: &str) {
    let (store, engine) = store_and_engine(folder, engine).await;
    let streams = Streams::new(engine, ServiceConfig::default());
    let options = schedule(&[3_600_000]).with_lease(Duration::from_secs(3600));
    let webhooks = Webhooks::start(Arc::clone(&store), streams, options);
    let webhooks = webhooks.await.unwrap();
    let new = NewEndpoint::new(Owner::Operator, EndpointSettings::new("https://a.example"));
    let endpoint = webhooks.create_endpoint(new).await.unwrap().0.id;
    webhooks.accept(vec![event(0)]).await.unwrap();
    soon(async {
        while webhooks.fan_out_lag().await.unwrap() != FanOutLag::default() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let addressed = Addressed {
        event: event(1),
        to: vec![(endpoint, Timestamp::MAX)],
    };
    let added = store.add_deliveries(vec![addressed].into(), Timestamp::now());
    added.await.unwrap();
    println!("stored deliveries");
    let aside = AcceptedEvent {
        event: event(2),
        newest_endpoint: 1,
    };
    store.defer(vec![aside]).await.unwrap();
    println!("stored a deferred event");
}

/// What of the file of the store was on disk when each of the two calls returned.
fn stored_beside(engine: &str, test: &str) -> Vec<TracedReply> {
    let folder = tempfile::tempdir().unwrap();
    let trace = DiskTrace::new(&folder.path().join("trace"));
    let mut command = trace.command(std::env::current_exe().unwrap());
    let test = format!("durability::{test}");
    let output = command
        .args(["--exact", &test, "--nocapture"])
        .env(CHILD, folder.path().join(engine));
    std::fs::create_dir(folder.path().join(engine)).unwrap();
    let output = output.output().unwrap();
    let files = ["webhooks.db-wal", "webhooks.db"];
    let stored = trace.replies("stored ", &files).unwrap();
    assert_eq!(stored.len(), 2, "{output:?}");
    stored
}

/// The folder of a child, which is named after its engine.
async fn is_child() -> bool {
    let Some(folder) = std::env::var_os(CHILD) else {
        return false;
    };
    let folder = Path::new(&folder);
    let engine = folder.file_name().unwrap().to_str().unwrap();
    add_and_defer(folder, engine).await;
    true
}

#[tokio::test]
async fn regression_what_is_acknowledged_in_another_store_is_on_disk_before() {
    if is_child().await {
        return;
    }
    let test = "regression_what_is_acknowledged_in_another_store_is_on_disk_before";
    for engine in ["other", "memory"] {
        let stored = stored_beside(engine, test);
        assert!(stored.iter().all(is_durable), "{engine}: {stored:?}");
    }
}

/// The acknowledgement is lost with what was made before it, or not at all. It shows as well that the trace above would
/// show what is not on disk.
#[tokio::test]
async fn what_is_acknowledged_in_the_same_file_does_not_wait_for_the_disk() {
    if is_child().await {
        return;
    }
    let test = "what_is_acknowledged_in_the_same_file_does_not_wait_for_the_disk";
    let stored = stored_beside("same", test);
    assert!(!stored.iter().any(is_durable), "{stored:?}");
}
