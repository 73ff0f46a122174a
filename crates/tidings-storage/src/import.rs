//! Moving everything in a SQLite file to a PostgreSQL database.

use std::io::{self, ErrorKind};
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
    data: &["tidings_server_request"],
    lease: None,
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
    data: &["tidings_server_api_key"],
    lease: None,
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
pub enum ImportError {
    /// There is nothing to import.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The operating system does not say what is there.
    #[error("cannot look at {}", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open the file")]
    Source(#[source] StorageError),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Target(#[source] StorageError),
    /// The rows could not be copied.
    #[error(transparent)]
    Copy(#[from] tidings_import::Error),
}

/// Everything was copied.
#[derive(Debug)]
pub struct Imported {
    /// How many rows were copied.
    pub rows: u64,
    /// Whether the file could be marked, so that a server on it warns.
    pub marked: Result<(), StorageError>,
}

/// Copies everything in a file to an empty database, and reports how far it is.
///
/// # Errors
///
/// [`ImportError`] when a server uses one of the two, the database is not empty, or one of them fails.
pub async fn import(
    from: &Path,
    to: &PostgresUrl,
    report: impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    // Opening would make a file.
    if let Err(source) = std::fs::metadata(from) {
        let path = from.to_owned();
        return Err(match source.kind() {
            ErrorKind::NotFound => ImportError::NoFile { path },
            _ => ImportError::Look { path, source },
        });
    }
    let file = sqlite::database(from).map_err(|error| ImportError::Source(error.into()))?;
    let source = Source::check(file.clone(), PARTS).await?;
    // Ends the claims of a server that has crashed.
    let opened = sqlite::open_in(file.clone())
        .await
        .map_err(ImportError::Source)?;
    let imported = copy(&source, to, report).await;
    opened.close().await;
    imported
}

async fn copy(
    source: &Source,
    to: &PostgresUrl,
    report: impl FnMut(Progress),
) -> Result<Imported, ImportError> {
    let target = Config::new(to.expose()).map_err(|error| ImportError::Target(error.into()))?;
    // Before anything changes: the tables of an earlier version may be those of running servers.
    let locked = tidings_import::lock(source, &target).await?;
    let opened = postgres::open_in(target.clone(), None).await;
    opened.map_err(ImportError::Target)?.close().await;
    let copied = locked.copy(report).await?;
    // Before the end, so that no crash leaves both usable without a warning. Too early a mark does no harm.
    let marked = imported::mark(source.database(), to.to_string()).await;
    let rows = copied.finish().await?;
    Ok(Imported { rows, marked })
}

#[cfg(test)]
mod tests;
