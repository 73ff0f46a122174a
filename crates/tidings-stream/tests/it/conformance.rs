//! The engines of this crate, against the contract of engines.

use std::sync::Arc;
use tempfile::TempDir;
use tidings_sqlite::{Database, Options};
use tidings_stream::MemoryEngine;
use tidings_stream::engine::Engine;
use tidings_stream::postgres::PostgresOptions;
use tidings_stream::sqlite::SqliteEngine;

use crate::database::{Schema, fresh_engine, fresh_engine_with};

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
    /// Streams in a file, on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_on_two_threads() -> (Arc<dyn Engine>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
        (Arc::new(SqliteEngine::open(database).await.unwrap()), folder)
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a PostgreSQL database.
    async fn postgres() -> (Arc<dyn Engine>, Schema) {
        fresh_engine().await
    }
}

tidings_stream::conformance_tests! {
    /// Streams in a PostgreSQL database, on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_on_two_threads() -> (Arc<dyn Engine>, Schema) {
        fresh_engine().await
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
    /// Streams on a Redis server, on several threads.
    #[tokio_test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_on_two_threads() -> (Arc<dyn Engine>, ()) {
        (Arc::new(crate::redis::engine().await), ())
    }
}
