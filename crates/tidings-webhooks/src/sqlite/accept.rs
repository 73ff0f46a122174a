use rusqlite::Transaction;
use tidings_stream::StreamName;

use super::endpoints;
use crate::{StoreError, WebhookEvent, fan_out};

/// Accepts events within the caller's own transaction: they reach their endpoints if it commits, and
/// never if it does not. Returns whether an endpoint may want one of them; if none can, nothing is
/// written.
///
/// Call [`Webhooks::wake`](crate::Webhooks::wake) after the commit; without it the events are found
/// at the next poll. The tables must be there, so a [`SqliteStore`](super::SqliteStore) and a
/// [`SqliteEngine`](tidings_stream::sqlite::SqliteEngine) must have been opened on the file.
///
/// # Errors
///
/// [`StoreError`] when SQLite fails. The transaction must be rolled back, as a job of
/// [`tidings_sqlite::Database::write`] is that returns the error.
pub fn accept_in(
    tx: &Transaction<'_>,
    stream: &StreamName,
    events: &[WebhookEvent],
) -> Result<bool, StoreError> {
    let users = events.iter().filter_map(WebhookEvent::user);
    if events.is_empty() {
        return Ok(false);
    }
    let Some(newest_endpoint) = endpoints::newest_if_wanted(tx, users)? else {
        return Ok(false);
    };
    let messages = fan_out::message::write(events, newest_endpoint).map_err(StoreError::backend)?;
    tidings_stream::sqlite::publish_in(tx, stream, &messages).map_err(fan_out::stream_failure)?;
    Ok(true)
}
