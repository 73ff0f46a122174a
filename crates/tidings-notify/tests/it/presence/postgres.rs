//! What is particular to presence on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::Presence;
use tidings_notify::presence::WatchItem::{Offline, Online};
use tidings_notify::presence::conformance;
use tidings_notify::presence::postgres::{Config, PostgresOptions, PostgresPresence};
use tidings_postgres::tokio_postgres::Client;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_test_support::PostgresServer;

use super::{quick, soon, until_located, until_online, until_reported};
use crate::database::{PATIENT, Schema, connect};
use crate::support::{ann, user};

/// Every table, and all together.
pub(super) const LOSSES: [&str; 5] = [
    "TRUNCATE tidings_presence_lease",
    "TRUNCATE tidings_presence_user",
    "TRUNCATE tidings_presence_transition",
    "TRUNCATE tidings_presence_log",
    "TRUNCATE tidings_presence_lease, tidings_presence_user, tidings_presence_transition,
        tidings_presence_log",
];

/// Empties tables. The instances that use them at the same time lock them in another order, and the server may choose
/// either side to resolve the deadlock.
async fn lose(client: &Client, loss: &str) {
    while let Err(error) = client.batch_execute(loss).await {
        assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
    }
}

pub(super) async fn open(url: &str) -> Arc<dyn Presence> {
    open_with(url, PATIENT, PostgresOptions::default()).await
}

/// A presence that gives a silent server up after five seconds.
pub(super) async fn impatient(url: &str) -> Arc<dyn Presence> {
    open_with(url, Duration::from_secs(5), PostgresOptions::default()).await
}

async fn open_with(url: &str, limit: Duration, options: PostgresOptions) -> Arc<dyn Presence> {
    let config = Config::new(url).unwrap().with_reply_limit(limit);
    Arc::new(PostgresPresence::open(config, options).await.unwrap())
}

/// Two handles of an empty presence.
pub(super) async fn fresh() -> ([Arc<dyn Presence>; 2], Schema) {
    let schema = Schema::create().await;
    let handles = [open(&schema.url()).await, open(&schema.url()).await];
    (handles, schema)
}

#[tokio::test]
async fn a_heartbeat_is_one_statement_for_all_connections() {
    let server = PostgresServer::start().unwrap();
    let presence = open(&server.url()).await;
    let tracker = quick(&presence, "one");
    let connections: Vec<_> = (0..10_000)
        .map(|n| tracker.register(user(&format!("user-{n}"))).unwrap())
        .collect();
    for connection in &connections {
        connection.stored().await.unwrap();
    }
    let client = connect(&server.url()).await;
    let logging = "ALTER SYSTEM SET log_statement = 'all'";
    client.batch_execute(logging).await.unwrap();
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let statements = || -> Vec<String> {
        let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
        let statements = log.split("LOG:  execute").skip(1);
        statements.map(str::to_owned).collect()
    };
    // Sessions notice the setting between two statements.
    soon(async {
        while statements().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let begun = statements().len();
    let begun_at = tokio::time::Instant::now();
    soon(async {
        while statements().len() < begun + 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Three heartbeats, and the time between them.
    assert!(begun_at.elapsed() > Duration::from_secs(2));
    for statement in &statements()[begun..] {
        assert!(
            statement.contains("UPDATE tidings_presence_lease"),
            "{statement}"
        );
    }
    tracker.close().await.unwrap();
}

/// The functions do not rely on the default of the session.
#[tokio::test]
async fn sessions_may_have_another_isolation_level() {
    let schema = Schema::create().await;
    let url = format!(
        "{}%20-cdefault_transaction_isolation%3Dserializable",
        schema.url()
    );
    let handles = || async { [open(&url).await, open(&url).await] };
    conformance::concurrent_updates_leave_alternating_transitions(handles().await).await;
}

#[tokio::test]
async fn a_watch_reports_what_is_no_longer_kept() {
    let schema = Schema::create().await;
    let options = PostgresOptions::default().with_kept_transitions(3);
    let presence = open_with(&schema.url(), PATIENT, options).await;
    super::redis::lag_behind_three(presence).await;
}

#[tokio::test]
async fn every_table_may_be_truncated() {
    let ([here, there], schema) = fresh().await;
    let client = schema.client().await;
    let one = quick(&here, "one");
    let two = quick(&there, "two");
    let everyone = ["ann", "bob"].map(user);
    let _ann = one.register(ann()).unwrap();
    let _bob = two.register(user("bob")).unwrap();
    for loss in LOSSES {
        until_online(&here, &everyone, &everyone).await;
        lose(&client, loss).await;
        until_located(&here, &everyone[0], "one").await;
        until_located(&here, &everyone[1], "two").await;
        // Who comes afterwards is noticed, and so is who leaves.
        let mut watch = one.watch().await.unwrap();
        let mut cid = two.register(user("cid")).unwrap();
        cid.stored().await.unwrap();
        until_reported(&mut watch, &there, Online(user("cid"))).await;
        cid.unregister().await.unwrap();
        until_reported(&mut watch, &there, Offline(user("cid"))).await;
    }
}
