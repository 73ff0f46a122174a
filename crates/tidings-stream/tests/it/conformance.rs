//! The engines of this crate, against the contract of engines.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use tidings_sqlite::{Database, Options};
use tidings_stream::MemoryEngine;
use tidings_stream::engine::{Engine, Wakes};
use tidings_stream::postgres::PostgresOptions;
use tidings_stream::sqlite::SqliteEngine;

use crate::database::{Schema, fresh_engine, fresh_engine_with, warm_engine};
use crate::wrapped::{Hook, Wrapped};

/// Two handles that take turns, as if they were two processes: whatever one has done, the other goes on with.
#[derive(Debug)]
struct Turns;

impl Hook for Turns {}

/// The same where only a poll finds what another process has done.
#[derive(Debug)]
struct TurnsWithoutNews(Wakes);

#[async_trait]
impl Hook for TurnsWithoutNews {
    async fn after(&self, _: &'static str) {
        self.0.wake_all();
    }
}

tidings_stream::conformance_tests! {
    /// Streams in memory, by a clock that jumps to the next event.
    #[tokio_test(start_paused = true)]
    async fn memory() -> (Arc<dyn Engine>, ()) {
        (Arc::new(MemoryEngine::new()), ())
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a file.
    async fn sqlite() -> (Arc<dyn Engine>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
        (Arc::new(SqliteEngine::open(database).await.unwrap()), folder)
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a file, over two handles on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_over_two_handles() -> (Arc<dyn Engine>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut engines = Vec::new();
        for _ in 0..2 {
            let path = folder.path().join("test.db");
            let database = Database::open(path, &Options::default()).unwrap();
            engines.push(SqliteEngine::open(database).await.unwrap());
        }
        let wakes = engines[0].wakes().clone();
        (Wrapped::taking_turns(engines, TurnsWithoutNews(wakes)), folder)
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a PostgreSQL database.
    async fn postgres() -> (Arc<dyn Engine>, Schema) {
        fresh_engine().await
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a PostgreSQL database, over two handles on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_over_two_handles() -> (Arc<dyn Engine>, Schema) {
        let schema = Schema::create().await;
        let mut engines = Vec::new();
        for _ in 0..2 {
            engines.push(warm_engine(&schema, PostgresOptions::default()).await);
        }
        (Wrapped::taking_turns(engines, Turns), schema)
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a PostgreSQL database, in sessions that are not the engine's alone.
    async fn postgres_without_prepared_statements() -> (Arc<dyn Engine>, Schema) {
        fresh_engine_with(PostgresOptions::default().without_prepared_statements()).await
    }
}

tidings_stream::conformance_tests! {
    /// Streams on a Redis server.
    async fn redis() -> (Arc<dyn Engine>, ()) {
        (Arc::new(crate::redis::engine().await), ())
    }
}

tidings_stream::conformance_tests! {
    /// Streams on a Redis server, over two handles on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_over_two_handles() -> (Arc<dyn Engine>, ()) {
        let (url, prefix) = (crate::redis::url(), crate::redis::prefix());
        let engines = vec![
            crate::redis::open(&url, &prefix).await,
            crate::redis::open(&url, &prefix).await,
        ];
        (Wrapped::taking_turns(engines, Turns), ())
    }
}
