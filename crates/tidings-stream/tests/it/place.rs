//! Where streams are that several processes share, as a text that a child process is given.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions};
use tidings_stream::sqlite::SqliteEngine;

use crate::database::Schema;

/// A place that goes when it is dropped.
pub(crate) struct Place {
    text: String,
    _folder: Option<TempDir>,
    _schema: Option<Schema>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            text: format!("sqlite {}", folder.path().to_str().unwrap()),
            _folder: Some(folder),
            _schema: None,
        }
    }

    pub(crate) async fn postgres() -> Self {
        let schema = Schema::create().await;
        Self {
            text: format!("postgres {}", schema.url()),
            _folder: None,
            _schema: Some(schema),
        }
    }

    pub(crate) fn redis() -> Self {
        Self {
            text: format!("redis {}", crate::redis::prefix()),
            _folder: None,
            _schema: None,
        }
    }

    /// What [`open`] takes, in this process or another.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Opens the engine of a place.
pub(crate) async fn open(place: &str) -> Arc<dyn Engine> {
    let (kind, place) = place.split_once(' ').unwrap();
    match kind {
        "sqlite" => {
            let path = Path::new(place).join("test.db");
            let database = Database::open(path, &Options::default()).unwrap();
            Arc::new(SqliteEngine::open(database).await.unwrap())
        }
        "postgres" => {
            let config = Config::new(place).unwrap();
            let engine = PostgresEngine::open(config, PostgresOptions::default()).await;
            Arc::new(engine.unwrap())
        }
        "redis" => Arc::new(crate::redis::open(&crate::redis::url(), place).await),
        other => panic!("{other}"),
    }
}
