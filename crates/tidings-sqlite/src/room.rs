//! Room in the file for all that is in the log.
//!
//! What a transaction adds to the database is in the write-ahead log first, and moving it into the file needs room there.
//! If the disk is full by then, the log can never be written over, and nothing can be written any more: not even changes
//! that fit into the pages that there are, and deletes, which would make room. So the file gets the room before the commit.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, DEFAULT_NAME, FileControl, Transaction, ffi};

use crate::Error;

/// The file grows, and shrinks, by as many bytes at a time.
const CHUNK: i32 = 256 * 1024;

/// The room of one file, as its writer keeps it.
#[derive(Debug)]
pub(crate) struct Room {
    page_size: u64,
    is_scarce: AtomicBool,
}

impl Room {
    /// Makes the file grow in chunks, of which the last may be empty.
    pub(crate) fn keep(connection: &Connection) -> Result<Self, Error> {
        let mut chunk = CHUNK;
        connection.file_control(DEFAULT_NAME, FileControl::ChunkSize(&mut chunk))?;
        let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(Self {
            page_size: page_size.into(),
            is_scarce: AtomicBool::new(false),
        })
    }

    /// Whether the file could not grow. Until it can, a transaction has one job, so that one which adds nothing does not
    /// fail with another that does.
    pub(crate) fn is_scarce(&self) -> bool {
        self.is_scarce.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// [`Error::Full`] when the file could not grow.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_scarce() {
            Err(full())
        } else {
            Ok(())
        }
    }

    /// How many bytes the database has, with what the transaction has changed.
    pub(crate) fn size(&self, transaction: &Transaction<'_>) -> Result<u64, rusqlite::Error> {
        let mut pages = transaction.prepare_cached("PRAGMA page_count")?;
        let pages: u32 = pages.query_row([], |row| row.get(0))?;
        Ok(u64::from(pages) * self.page_size)
    }

    /// Makes a file of this length as long as the database, which had so many bytes before the transaction. If it could
    /// not grow before, it is tried by every transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there is no room for what the transaction has added.
    pub(crate) fn reserve(
        &self,
        transaction: &Transaction<'_>,
        length: u64,
        before: u64,
    ) -> Result<(), Error> {
        let size = self.size(transaction)?;
        let wanted = if self.is_scarce() {
            size.max(length + 1)
        } else {
            size
        };
        if wanted <= length {
            return Ok(());
        }
        let mut hint = wanted.cast_signed();
        let grown = transaction.file_control(DEFAULT_NAME, FileControl::SizeHint(&mut hint));
        self.is_scarce.store(grown.is_err(), Ordering::Relaxed);
        match grown {
            // SQLite calls every failure of it one of writing.
            Err(_) if size > length && size > before => Err(full()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn full() -> Error {
    let full = ffi::Error::new(ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(full, None).into()
}
