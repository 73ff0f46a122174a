//! How connections are opened: the settings that every connection to the file shares.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, application};

/// Longest wait for another process that is writing.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection. The stores of one server use about sixty.
const STATEMENT_CACHE: usize = 128;

/// Opens the connection that writes. With an application id the file must be this program's, or empty.
pub(crate) fn open_writer(path: &Path, application_id: Option<i32>) -> Result<Connection, Error> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    configure(&connection)?;
    check_header(&connection, path)?;
    // Before anything is changed in it.
    if let Some(id) = application_id {
        application::claim(&mut connection, path, id)?;
    }
    // A checkpoint every 4,000 pages (16 MiB) keeps the log short without a checkpoint every few
    // commits; the size limit gives the space back after a burst. The cache is small because SQLite goes
    // through the whole of it in each commit that has split a page and put it between others, in a file of
    // less than 1 GiB. What is not in it is in the cache of the system.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(connection)
}

/// Reads the header of the file, which refuses one that is no database.
fn check_header(connection: &Connection, path: &Path) -> Result<(), Error> {
    let version = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
    match version {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(Error::NotADatabase {
                path: path.to_owned(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens a connection that can only read. The file must exist.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    configure(&connection)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16384;")?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Plans that depend on bound values, such as that of a `LIMIT`, would be made again by each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // SQLite does not see that the file is another one. The writer looks before it moves the log there.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}
