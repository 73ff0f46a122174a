//! What has to be done in a file that is a copy: one that was put back, or brought from elsewhere.

use rusqlite::Transaction;
use tidings_sqlite::Database;

use crate::StoreError;

/// A number that grows with each event and each change of an inbox.
const PROGRESS: &str = "SELECT coalesce(max(changed), 0) FROM notify_log";

/// Most logs that get their epochs in one transaction, by their numbers.
const STEP: i64 = 10_000;

/// Gives every log a new epoch if the file is a copy: its next events get numbers that others had, and must not be taken
/// for these. From then on, it is kept how far the file is.
pub(super) async fn begin_anew_if_copy(database: &Database) -> Result<(), StoreError> {
    if database.is_copy(PROGRESS).await? {
        let mut after = Some(0);
        while let Some(done) = after {
            after = database.write(move |tx| give_epochs(tx, done)).await?;
        }
        tracing::warn!(
            path = %database.path().display(),
            "the database is a copy that was put back, or comes from elsewhere: its events have got new ids, and readers \
             get a gap"
        );
    }
    // Only now: if this ends before, the next start begins again.
    database.keep_progress(PROGRESS).await?;
    Ok(())
}

/// Gives the next logs a new epoch. Returns the last of them, if there may be more.
fn give_epochs(tx: &Transaction<'_>, after: i64) -> Result<Option<i64>, StoreError> {
    let up_to = after + STEP;
    // 0 is the epoch of a log that does not exist yet.
    tx.execute(
        "UPDATE notify_log SET epoch = random() | 1 WHERE id > ?1 AND id <= ?2",
        (after, up_to),
    )?;
    let newest: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM notify_log", [], |row| {
        row.get(0)
    })?;
    Ok((newest > up_to).then_some(up_to))
}
