//! Whose database a file is.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::Error;

/// Marks an empty file as one of this program, and refuses one that is another program's.
///
/// A file without a mark that has our table of schemas is ours: a file that was made anew from the `.dump` of another one
/// has none.
pub(crate) fn claim(connection: &mut Connection, path: &Path, id: i32) -> Result<(), Error> {
    if mark(connection)? == id {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = mark(&transaction)?;
    if found != id {
        let first_table = "SELECT name FROM sqlite_schema WHERE type = 'table'
            ORDER BY name = 'tidings_schema' DESC LIMIT 1";
        let table: Option<String> = transaction
            .query_row(first_table, [], |row| row.get(0))
            .optional()?;
        let is_ours = table.is_none_or(|table| table == "tidings_schema");
        if found != 0 || !is_ours {
            return Err(Error::OtherProgram {
                path: path.to_owned(),
            });
        }
        transaction.pragma_update(None, "application_id", id)?;
    }
    Ok(transaction.commit()?)
}

fn mark(connection: &Connection) -> Result<i32, rusqlite::Error> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}
