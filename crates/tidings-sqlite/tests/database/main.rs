//! What the shared SQLite file promises, through its public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod copies;
mod files;
mod locks;
mod migrations;

use std::time::Duration;

use tidings_sqlite::{Database, Error, Options, rusqlite};

const SCHEMA: &[&str] = &["CREATE TABLE item (n INTEGER PRIMARY KEY) STRICT"];

async fn open(folder: &tempfile::TempDir) -> Database {
    let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database
}

async fn insert(database: &Database, n: i64) -> Result<(), Error> {
    database
        .write(move |tx| {
            tx.execute("INSERT INTO item VALUES (?1)", [n])?;
            Ok(())
        })
        .await
}

async fn count(database: &Database) -> i64 {
    database
        .read::<_, Error, _>(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?)
        })
        .await
        .unwrap()
}

/// A connection of another process, as far as SQLite's locks are concerned.
fn other_process(database: &Database) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(database.path()).unwrap();
    connection.busy_timeout(Duration::from_secs(2)).unwrap();
    connection
}

/// Whether the row was there before.
fn is_duplicate(error: &Error) -> bool {
    let Error::Sqlite(source) = error else {
        return false;
    };
    source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
