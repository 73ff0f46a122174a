//! Keeping the write-ahead log short.
//!
//! SQLite's own checkpoints do not wait: readers that overlap without end, or one that holds an old
//! snapshot, let the log grow for as long as they continue.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::connection::BUSY_TIMEOUT;

/// A log that is longer is copied into the database and emptied, which waits for readers.
const MAX_LOG: u64 = 128 * 1024 * 1024;

/// Longest wait for readers: no job is served meanwhile.
const PATIENCE: Duration = Duration::from_millis(250);

/// Pause between two attempts.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct LogKeeper {
    last_attempt: Option<Instant>,
    has_warned: bool,
}

impl LogKeeper {
    /// Empties a log of this length if it is too long and its readers let it, and warns once if they do
    /// not.
    pub(crate) fn keep_short(&mut self, connection: &Connection, bytes: u64) {
        if bytes <= MAX_LOG {
            if std::mem::take(&mut self.has_warned) {
                tracing::info!(bytes, "the write-ahead log is short again");
            }
            return;
        }
        let now = Instant::now();
        if self.last_attempt.is_some_and(|last| now - last < INTERVAL) {
            return;
        }
        self.last_attempt = Some(now);
        let emptied = empty(connection);
        if !matches!(emptied, Ok(true)) && !self.has_warned {
            self.has_warned = true;
            let error = emptied.err();
            tracing::warn!(
                bytes,
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "the write-ahead log grows: a reader holds an old snapshot of the database"
            );
        }
    }
}

/// Whether the log is empty now.
fn empty(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.busy_timeout(PATIENCE)?;
    let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    is_busy.map(|is_busy: bool| !is_busy)
}
