//! Recognising what was published before.

use rusqlite::{OptionalExtension, Transaction, params};

use super::clock;
use crate::{Error, PublishKey};

/// The number of the first message under a key: `number`, which takes the key, unless an earlier
/// one has it and its window is open.
pub(super) fn claim(
    transaction: &Transaction<'_>,
    stream_id: i64,
    key: &PublishKey,
    number: i64,
) -> Result<i64, Error> {
    let now = clock::now();
    let known = transaction
        .prepare_cached(
            "SELECT number FROM stream_publish_key
             WHERE stream_id = ?1 AND key = ?2 AND expires > ?3",
        )?
        .query_row(params![stream_id, key.key, now], |row| row.get(0))
        .optional()?;
    if let Some(first) = known {
        return Ok(first);
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO stream_publish_key VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            stream_id,
            key.key,
            number,
            now.saturating_add(clock::millis(key.window))
        ])?;
    Ok(number)
}

/// Forgets up to `max` keys whose windows have ended, and answers how many those were.
pub(super) fn forget_expired(transaction: &Transaction<'_>, max: i64) -> Result<i64, Error> {
    let forgotten = transaction
        .prepare_cached(
            "DELETE FROM stream_publish_key WHERE (stream_id, key) IN (
                 SELECT stream_id, key FROM stream_publish_key WHERE expires <= ?1 LIMIT ?2)",
        )?
        .execute([clock::now(), max])?;
    Ok(i64::try_from(forgotten).unwrap_or(i64::MAX))
}
