//! Whether the server can accept notifications: whether its database can be written.

use std::time::Duration;

use tidings_sqlite::{Database, Error};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a result is kept: the database is tried once in this time, however many requests ask.
const FRESH: Duration = Duration::from_secs(1);

pub(crate) const SCHEMA: &[&str] = &["
    CREATE TABLE readiness (id INTEGER PRIMARY KEY, tried INTEGER NOT NULL) STRICT;
"];

/// Tries the database, and remembers the result for a moment.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, Result<(), Error>)>>,
}

impl Readiness {
    /// Writes something, or returns the result of a moment ago.
    pub(crate) async fn check(&self, database: &Database) -> Result<(), Error> {
        let mut last = self.last.lock().await;
        if let Some((when, outcome)) = &*last
            && when.elapsed() < FRESH
        {
            return outcome.clone();
        }
        let outcome = database.write_relaxed(write).await;
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

fn write(tx: &rusqlite::Transaction<'_>) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO readiness (id, tried) VALUES (1, 1)
         ON CONFLICT (id) DO UPDATE SET tried = tried + 1",
    )?
    .execute([])?;
    Ok(())
}
