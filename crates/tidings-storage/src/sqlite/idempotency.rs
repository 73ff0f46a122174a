//! The table of idempotency keys.

use jiff::Timestamp;
use tidings_sqlite::rusqlite::{Connection, OptionalExtension, Transaction};

use crate::idempotency::{KEPT, Once};
use crate::stored::{self, Kept};
use crate::{CLEANED_AT_ONCE, Changed, KeptResponse, NewResponse, StorageError};

/// Whose table this is, in the file's list of schemas.
pub(crate) const COMPONENT: &str = "idempotency";

/// The steps of the migration. One that was released is never changed; a change is another step.
pub(crate) const STEPS: &[&str] = &["
    CREATE TABLE idempotency (
        key TEXT PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        accepted_at INTEGER NOT NULL, -- microseconds since 1970
        events TEXT NOT NULL, -- [[id, timestamp], …]: the repeated request has the rest
        response TEXT -- of requests that do not become notifications
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_age ON idempotency (accepted_at);
"];

/// Requests that one step looks through.
const RESPONSES_AT_ONCE: u32 = 1000;

/// A request as the table keeps it.
pub(super) enum Known {
    New,
    /// The request was accepted.
    Repeated {
        /// The [stored] events.
        events: String,
        /// The response, of a request that did not become notifications.
        response: Option<String>,
    },
    /// The key was used for another request.
    Conflict,
}

impl Known {
    /// What a request that does not become notifications has found.
    pub(super) fn of_change(self) -> Option<Changed> {
        match self {
            Self::New => None,
            Self::Conflict => Some(Changed::Conflict),
            Self::Repeated { response, .. } => Some(stored::find(response)),
        }
    }
}

pub(super) fn look_up(tx: &Connection, once: &Once) -> Result<Known, StorageError> {
    let found = tx
        .prepare_cached(
            "SELECT fingerprint, events, response FROM idempotency
             WHERE key = ?1 AND accepted_at > ?2",
        )?
        .query_row((once.key.as_str(), oldest_kept()), |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(match found {
        None => Known::New,
        Some((fingerprint, events, response)) if fingerprint == once.fingerprint => {
            Known::Repeated { events, response }
        }
        Some(_) => Known::Conflict,
    })
}

pub(super) fn record(
    tx: &Transaction<'_>,
    once: &Once,
    kept: Kept<'_>,
) -> Result<(), StorageError> {
    let (events, response) = kept.columns()?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (key, fingerprint, events, response, accepted_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((
        once.key.as_str(),
        once.fingerprint,
        events,
        response,
        Timestamp::now().as_microsecond(),
    ))?;
    Ok(())
}

/// A page of requests behind a key.
pub(super) fn responses(
    connection: &Connection,
    after: &str,
) -> Result<Vec<KeptResponse>, StorageError> {
    let mut select = connection.prepare_cached(
        "SELECT key, response FROM idempotency WHERE key > ?1 ORDER BY key LIMIT ?2",
    )?;
    let rows = select.query_map((after, RESPONSES_AT_ONCE), |row| {
        Ok(KeptResponse {
            key: row.get(0)?,
            response: row.get(1)?,
        })
    })?;
    rows.map(|row| row.map_err(StorageError::from)).collect()
}

pub(super) fn replace(tx: &Transaction<'_>, new: &[NewResponse]) -> Result<(), StorageError> {
    let mut update =
        tx.prepare_cached("UPDATE idempotency SET response = ?3 WHERE key = ?1 AND response = ?2")?;
    for NewResponse { key, old, new } in new {
        update.execute((key, old, new))?;
    }
    Ok(())
}

pub(super) fn clean(tx: &Transaction<'_>) -> Result<usize, StorageError> {
    let removed = tx
        .prepare_cached(
            "DELETE FROM idempotency WHERE key IN (
                 SELECT key FROM idempotency WHERE accepted_at <= ?1 LIMIT ?2)",
        )?
        .execute((oldest_kept(), CLEANED_AT_ONCE))?;
    Ok(removed)
}

/// Writes and deletes a row under a key that no caller can send.
pub(super) fn touch(tx: &Transaction<'_>) -> Result<(), StorageError> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (key, fingerprint, events, accepted_at)
         VALUES ('', x'', '[]', 0)",
    )?
    .execute([])?;
    tx.prepare_cached("DELETE FROM idempotency WHERE key = ''")?
        .execute([])?;
    Ok(())
}

fn oldest_kept() -> i64 {
    (Timestamp::now() - KEPT).as_microsecond()
}
