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
    /// When there was last nothing to be gained for a commit without room.
    last_without_room: Option<Instant>,
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
        let emptied = checkpoint(connection, "TRUNCATE");
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

    /// Lets the next transaction write over the log, after one that found no room to make it longer. SQLite
    /// does so only after a commit that succeeds. The file has [room](crate::room) for what is in the log, so that it
    /// takes changes and deletes also on a full disk.
    pub(crate) fn make_room(&mut self, connection: &Connection) {
        let now = Instant::now();
        let last = self.last_without_room;
        if last.is_some_and(|last| now - last < INTERVAL) {
            return;
        }
        let moved = checkpoint(connection, "RESTART");
        if matches!(moved, Ok(true)) {
            self.last_without_room = None;
        } else {
            self.last_without_room = Some(now);
            let error = moved.err();
            tracing::debug!(
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "cannot move the write-ahead log into the database"
            );
        }
    }
}

/// Moves the log into the database. Whether the next commit begins at its start.
fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, rusqlite::Error> {
    connection.busy_timeout(PATIENCE)?;
    let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
    let is_busy = connection.query_row(&checkpoint, [], |row| row.get(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    is_busy.map(|is_busy: bool| !is_busy)
}
