//! An import beside servers, and what becomes of its end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tidings_import::Error;
use tidings_postgres::Database;
use tidings_sqlite::rusqlite::Connection;
use tidings_test_support::PostgresServer;
use tidings_webhooks::{Options, Webhooks};
use tokio::task::JoinHandle;

use super::super::DatabaseUrl;
use super::*;

/// A file that a server has used, and a PostgreSQL server of its own.
struct Both {
    _folder: tempfile::TempDir,
    source: Source,
    server: PostgresServer,
    url: PostgresUrl,
}

impl Both {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = sqlite::database(&folder.path().join("tidings.db")).unwrap();
        sqlite::open_in(file.clone()).await.unwrap();
        let server = PostgresServer::start().unwrap();
        let DatabaseUrl::Postgres(url) = server.url().parse().unwrap() else {
            panic!("the URL of a server");
        };
        Self {
            _folder: folder,
            source: Source::check(file, PARTS).await.unwrap(),
            server,
            url,
        }
    }

    fn config(&self) -> Config {
        Config::new(self.url.expose()).unwrap()
    }

    /// Makes the tables.
    async fn prepare(&self) {
        let opened = postgres::open_in(self.config(), None).await.unwrap();
        opened.close().await;
    }

    fn import(
        &self,
        report: impl FnMut(Progress) + Send + 'static,
    ) -> JoinHandle<Result<Imported, ImportError>> {
        let (source, url) = (self.source.clone(), self.url.clone());
        tokio::spawn(async move { copy(&source, &url, report).await })
    }

    /// Waits until a statement like this one waits for a lock, as this task is to do.
    async fn until_waiting<T: std::fmt::Debug>(&self, statement: &str, task: &JoinHandle<T>) {
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}'"
        );
        while self.server.execute(&waits).unwrap().trim() == "0" {
            assert!(!task.is_finished(), "it did not wait");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A report that stops the import at its first table, and what lets it go on.
fn stop_at_first() -> (
    impl FnMut(Progress) + Send + 'static,
    Receiver<()>,
    Sender<()>,
) {
    let (stopped, until_stopped) = channel();
    let (go_on, until_going_on) = channel();
    let mut is_first = true;
    let report = move |_| {
        if std::mem::take(&mut is_first) {
            stopped.send(()).unwrap();
            until_going_on.recv().unwrap();
        }
    };
    (report, until_stopped, go_on)
}

fn refusal(imported: Result<Imported, ImportError>) -> Error {
    match imported {
        Err(ImportError::Copy(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn is_unfinished(config: Config) -> bool {
    let asked = tidings_import::is_unfinished(&Database::new(config)).await;
    asked.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_an_import_whose_last_commit_is_not_confirmed_has_ended_and_marked_its_file() {
    let both = Both::start().await;
    both.prepare().await;
    both.server.hold_commits().unwrap();
    // Only the last commit waits.
    let importing = both.import(|_| {});
    while both.server.held_commits().unwrap() == 0 {
        assert!(!importing.is_finished(), "{:?}", importing.await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mark = |connection: &Connection| {
        let mark = connection.query_row("SELECT \"to\" FROM imported", [], |row| row.get(0));
        Ok::<String, tidings_sqlite::Error>(mark?)
    };
    let marked = both.source.database().read(mark).await.unwrap();
    assert_eq!(marked, both.url.to_string());
    both.server.cut_off_a_commit().await.unwrap();
    importing.await.unwrap().unwrap();
    assert!(!is_unfinished(both.config()).await);
}

/// A server that starts has asked whether an import has begun, and cannot be seen yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_an_import_waits_for_a_server_that_starts_and_is_refused_then() {
    let both = Both::start().await;
    let storage = postgres::open(&both.url, None).await.unwrap();
    let importing = both.import(|_| {});
    both.until_waiting("%pg_advisory_xact_lock(%", &importing)
        .await;
    let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
    let _webhooks = Webhooks::start(store, streams, Options::default())
        .await
        .unwrap();
    let refused = refusal(importing.await.unwrap());
    assert!(matches!(refused, Error::InUse), "{refused:?}");
    assert!(!is_unfinished(both.config()).await);
}

/// The connection that keeps imports out is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_keeps_imports_out_although_it_loses_a_connection() {
    const HOLDER: &str =
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    let both = Both::start().await;
    let storage = postgres::open(&both.url, None).await.unwrap();
    let lost = both.server.execute(HOLDER).unwrap();
    let end = format!("SELECT pg_terminate_backend({lost})");
    both.server.execute(&end).unwrap();
    loop {
        let holder = both.server.execute(HOLDER).unwrap();
        if !holder.is_empty() && holder != lost {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let importing = both.import(|_| {});
    both.until_waiting("%pg_advisory_xact_lock(%", &importing)
        .await;
    storage.close().await;
    importing.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn regression_a_server_that_starts_while_an_import_begins_waits_and_refuses_the_database() {
    let both = Both::start().await;
    both.prepare().await;
    let other = both.config().connect().await.unwrap();
    let hold = "BEGIN; LOCK TABLE tidings_notify_log IN ACCESS SHARE MODE";
    other.batch_execute(hold).await.unwrap();
    let (report, until_stopped, go_on) = stop_at_first();
    let importing = both.import(report);
    both.until_waiting("%, tidings_server_api_key%", &importing)
        .await;
    let url = both.url.clone();
    let opening = tokio::spawn(async move { postgres::open(&url, None).await });
    both.until_waiting("%pg_advisory_xact_lock_shared(%", &opening)
        .await;
    other.batch_execute("COMMIT").await.unwrap();
    let refused = opening.await.unwrap().unwrap_err();
    let refused = crate::explain::explain(&refused);
    assert!(refused.contains("was not finished"), "{refused}");
    until_stopped.recv().unwrap();
    go_on.send(()).unwrap();
    importing.await.unwrap().unwrap();
    postgres::open(&both.url, None).await.unwrap();
}

/// A program that has the stores, and is not the server, takes none of the locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_data_that_are_stored_just_before_an_import_locks_the_tables_stay() {
    let both = Both::start().await;
    both.prepare().await;
    let other = both.config().connect().await.unwrap();
    let store = "BEGIN; INSERT INTO tidings_server_api_key
        (id, name, digest, prefix, scopes, created_at) VALUES ('1', 'key', '', 'key', '', 0)";
    other.batch_execute(store).await.unwrap();
    let importing = both.import(|_| {});
    both.until_waiting("%, tidings_server_api_key%", &importing)
        .await;
    other.batch_execute("COMMIT").await.unwrap();
    let refused = refusal(importing.await.unwrap());
    assert!(matches!(refused, Error::NotEmpty { .. }), "{refused:?}");
    let keys = "SELECT count(*) FROM tidings_server_api_key";
    assert_eq!(both.server.execute(keys).unwrap().trim(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn regression_an_import_does_not_end_in_a_database_that_a_server_uses() {
    let both = Both::start().await;
    let (report, until_stopped, go_on) = stop_at_first();
    let importing = both.import(report);
    until_stopped.recv().unwrap();
    let lead = "INSERT INTO tidings_webhook_leader (one, instance, until)
        VALUES (true, 'old', extract(epoch FROM clock_timestamp()) * 1000000 + 60000000)";
    both.server.execute(lead).unwrap();
    go_on.send(()).unwrap();
    let refused = refusal(importing.await.unwrap());
    assert!(matches!(refused, Error::InUse), "{refused:?}");
    assert!(is_unfinished(both.config()).await);
}
