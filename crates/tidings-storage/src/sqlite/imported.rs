//! The mark of a file whose data were moved to a database by `tidings import`.

use jiff::Timestamp;
use tidings_sqlite::Database;
use tidings_sqlite::rusqlite::{self, OptionalExtension, Transaction};

use crate::StorageError;

/// Marks the file. `to` says where its data are, without a password.
pub(crate) async fn mark(database: &Database, to: String) -> Result<(), StorageError> {
    let at = Timestamp::now();
    let write = move |tx: &Transaction<'_>| {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS imported (\"to\" TEXT NOT NULL, at TEXT NOT NULL) STRICT",
        )?;
        tx.execute("DELETE FROM imported", [])?;
        let insert = "INSERT INTO imported (\"to\", at) VALUES (?1, ?2)";
        tx.execute(insert, (&to, format!("{at:.0}")))?;
        Ok::<_, StorageError>(())
    };
    database.write(write).await
}

/// Warns of a file that is marked: what it still has to do, the servers on the database do too.
pub(super) async fn warn_if_marked(database: &Database) -> Result<(), StorageError> {
    let read = |connection: &rusqlite::Connection| {
        let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'imported'";
        if !connection.prepare(exists)?.exists([])? {
            return Ok(None);
        }
        let select = "SELECT \"to\", at FROM imported";
        let row =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let mark = connection.query_row(select, [], row).optional()?;
        Ok::<_, StorageError>(mark)
    };
    if let Some((to, at)) = database.read(read).await? {
        tracing::warn!(
            at,
            to,
            "this file was imported into another database: webhooks that were pending then are sent from both"
        );
    }
    Ok(())
}
