//! Bringing a component's tables up to the version that the program knows.

use rusqlite::{OptionalExtension, Transaction};

use crate::Error;

/// Applies the steps that the file has not seen yet.
pub(crate) fn apply(
    transaction: &Transaction<'_>,
    component: &'static str,
    steps: &[&str],
) -> Result<(), Error> {
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS tidings_schema (
             component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
    )?;
    let found = transaction
        .query_row(
            "SELECT version FROM tidings_schema WHERE component = ?1",
            [component],
            |row| row.get::<_, u32>(0),
        )
        .optional()?
        .unwrap_or(0) as usize;
    if found > steps.len() {
        return Err(Error::NewerSchema {
            component,
            found,
            known: steps.len(),
        });
    }
    if found == steps.len() {
        return Ok(());
    }
    for step in &steps[found..] {
        transaction.execute_batch(step)?;
    }
    transaction.execute(
        "INSERT INTO tidings_schema (component, version) VALUES (?1, ?2)
         ON CONFLICT (component) DO UPDATE SET version = excluded.version",
        (component, i64::try_from(steps.len()).unwrap_or(i64::MAX)),
    )?;
    Ok(())
}
