//! Moving everything in a SQLite file to a PostgreSQL database.

use std::path::{Path, PathBuf};

use tidings_import::{Part, Progress, Source, Table};
use tidings_postgres::Config;

use super::sqlite::{api_keys, idempotency, imported};
use super::{PostgresUrl, StorageError, postgres, sqlite};

/// The parts in the order in which they are copied.
pub(super) const PARTS: &[Part] = &[
    tidings_notify::import::PART,
    tidings_webhooks::import::PART,
    tidings_stream::import::PART,
    REQUESTS,
    API_KEYS,
];

/// The idempotency keys.
const REQUESTS: Part = Part {
    component: idempotency::COMPONENT,
    version: idempotency::STEPS.len(),
    has_data: "SELECT EXISTS (SELECT FROM tidings_server_request)",
    is_in_use: None,
    tables: &[Table {
        name: "tidings_server_request",
        columns: "key, fingerprint, events, response, accepted_at",
        select: "key, fingerprint, events, response, \
                 strftime('%Y-%m-%dT%H:%M:%fZ', accepted_at / 1000000.0, 'unixepoch')",
        from: "idempotency",
        with: None,
    }],
    sequences: &[],
};

/// The API keys.
const API_KEYS: Part = Part {
    component: api_keys::COMPONENT,
    version: api_keys::STEPS.len(),
    has_data: "SELECT EXISTS (SELECT FROM tidings_server_api_key)",
    is_in_use: None,
    tables: &[Table {
        name: "tidings_server_api_key",
        columns: "id, name, digest, prefix, scopes, created_at, expires_at, last_used_at",
        select: "id, name, digest, prefix, scopes, created_at, expires_at, last_used_at",
        from: "api_key",
        with: None,
    }],
    sequences: &[],
};

/// Why nothing was imported, or not everything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("there is no file {}", path.display())]
    NoFile { path: PathBuf },
    #[error("cannot open the file")]
    Source(#[source] StorageError),
    #[error("cannot use the database")]
    Target(#[source] StorageError),
    #[error(transparent)]
    Copy(#[from] tidings_import::Error),
}

/// Everything was copied.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) rows: u64,
    /// Whether the file could be marked, so that a server on it warns.
    pub(crate) marked: Result<(), StorageError>,
}

/// Copies everything.
pub(crate) async fn import(
    from: &Path,
    to: &PostgresUrl,
    report: impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    // Opening would make a file.
    if !from.is_file() {
        let path = from.to_owned();
        return Err(ImportError::NoFile { path });
    }
    let file = sqlite::database(from).map_err(|error| ImportError::Source(error.into()))?;
    let source = Source::check(file.clone(), PARTS).await?;
    // Ends the claims of a server that has crashed.
    let opened = sqlite::open_in(file.clone())
        .await
        .map_err(ImportError::Source)?;
    let imported = match prepare(to).await {
        Ok(config) => copy(&source, &config, to.to_string(), report).await,
        Err(error) => Err(error),
    };
    opened.close().await;
    imported
}

/// Makes the tables.
async fn prepare(to: &PostgresUrl) -> Result<Config, ImportError> {
    let config = Config::new(to.expose()).map_err(|error| ImportError::Target(error.into()))?;
    let target = postgres::open_in(config.clone(), None).await;
    target.map_err(ImportError::Target)?.close().await;
    Ok(config)
}

async fn copy(
    source: &Source,
    target: &Config,
    to: String,
    report: impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    let copied = tidings_import::copy(source, target, report).await?;
    // Before the end, so that no crash leaves both usable without a warning. Too early a mark does no harm.
    let marked = imported::mark(source.database(), to).await;
    let rows = copied.finish().await?;
    Ok(Imported { rows, marked })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_postgres::Database;
    use tidings_sqlite::rusqlite::Connection;
    use tidings_test_support::PostgresServer;

    use super::super::postgres::tests::{cut_off_a_commit, hold_commits, waits_for_its_commit};
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn regression_an_import_whose_last_commit_is_not_confirmed_has_ended_and_marked_its_file()
    {
        let folder = tempfile::tempdir().unwrap();
        let file = sqlite::database(&folder.path().join("tidings.db")).unwrap();
        sqlite::open_in(file.clone()).await.unwrap();
        let source = Source::check(file.clone(), PARTS).await.unwrap();
        let server = PostgresServer::start().unwrap();
        let config = Config::new(&server.url()).unwrap();
        let opened = postgres::open_in(config.clone(), None).await.unwrap();
        opened.close().await;
        hold_commits(&server);
        // Only the last commit waits.
        let importing = {
            let config = config.clone();
            tokio::spawn(async move { copy(&source, &config, "there".to_owned(), |_| {}).await })
        };
        while !waits_for_its_commit(&server) {
            assert!(!importing.is_finished(), "{:?}", importing.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mark = |connection: &Connection| {
            let mark = connection.query_row("SELECT \"to\" FROM imported", [], |row| row.get(0));
            Ok::<String, tidings_sqlite::Error>(mark?)
        };
        assert_eq!(file.read(mark).await.unwrap(), "there");
        cut_off_a_commit(&server).await;
        importing.await.unwrap().unwrap();
        let is_unfinished = tidings_import::is_unfinished(&Database::new(config)).await;
        assert!(!is_unfinished.unwrap());
    }
}
