//! How far the file has come, kept in the lock file beside it: by that, a copy in its place is recognised.
//!
//! A number alone would not do: a copy that is further than the file before it looks as if it had grown. So a file also
//! has a random lineage, which it shares with its copies, and gets another one when it was found to be a copy.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::Error;
use crate::file::LockFile;

/// The query of a number that grows with each transaction that must not be lost unseen, once it is kept.
pub(crate) type Query = Arc<OnceLock<&'static str>>;

/// Where a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    lineage: i64,
    reached: i64,
}

impl Position {
    /// The line of the lock file. Each has the same length, so that it replaces the one before as a whole.
    fn line(self) -> String {
        format!("{:016x} {:019}\n", self.lineage, self.reached)
    }

    fn write_to(self, mut lock: &File) -> io::Result<()> {
        lock.rewind()?;
        lock.write_all(self.line().as_bytes())
    }

    /// Puts it in the place of whatever the lock file has, and returns when it is on the disk.
    fn replace_in(self, lock: &File) -> io::Result<()> {
        self.write_to(lock)?;
        lock.set_len(self.line().len() as u64)?;
        lock.sync_all()
    }

    fn parse(text: &str) -> Option<Self> {
        let (lineage, reached) = text.lines().next()?.split_once(' ')?;
        Some(Self {
            lineage: u64::from_str_radix(lineage, 16).ok()?.cast_signed(),
            reached: reached.parse().ok()?,
        })
    }
}

/// What was kept when the file was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    /// The file has no lock, so there is no place to keep it.
    Nowhere,
    /// Nothing was kept, or where it was is gone: the file may have been brought here.
    Unknown,
    At(Position),
}

impl Kept {
    pub(crate) fn read(lock: Option<&File>) -> io::Result<Self> {
        let Some(mut lock) = lock else {
            return Ok(Self::Nowhere);
        };
        let mut text = String::new();
        match lock.read_to_string(&mut text) {
            Ok(_) => Ok(Position::parse(&text).map_or(Self::Unknown, Self::At)),
            // Nothing that was kept.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Self::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Whether the file is a copy: of another lineage than what was here, or behind it.
    pub(crate) fn is_of_another(
        self,
        connection: &Connection,
        progress: &str,
    ) -> Result<bool, Error> {
        let reached = number(connection, progress)?;
        Ok(match (self, lineage(connection)?) {
            (Self::Nowhere, _) => false,
            (Self::At(kept), Some(lineage)) => kept.lineage != lineage || reached < kept.reached,
            (Self::Unknown, _) | (Self::At(_), None) => reached > 0,
        })
    }
}

const LINEAGE: &str =
    "CREATE TABLE IF NOT EXISTS tidings_lineage (lineage INTEGER NOT NULL) STRICT";

fn lineage(connection: &Connection) -> Result<Option<i64>, Error> {
    let has_table = "SELECT 1 FROM sqlite_schema WHERE name = 'tidings_lineage'";
    if !connection.prepare(has_table)?.exists([])? {
        return Ok(None);
    }
    let lineage = connection.query_row("SELECT lineage FROM tidings_lineage", [], |row| row.get(0));
    Ok(lineage.optional()?)
}

/// Gives the file a lineage if it has none, or another one if it is a copy, and writes that down. Returns whether it could
/// be written.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    progress: &str,
    kept: Kept,
    lock: &File,
) -> Result<io::Result<()>, Error> {
    transaction.execute_batch(LINEAGE)?;
    let is_copy = kept.is_of_another(transaction, progress)?;
    let lineage = match lineage(transaction)? {
        Some(lineage) if !is_copy => lineage,
        _ => {
            transaction.execute("DELETE FROM tidings_lineage", [])?;
            let insert = "INSERT INTO tidings_lineage VALUES (random()) RETURNING lineage";
            transaction.query_row(insert, [], |row| row.get(0))?
        }
    };
    // The number alone may stay behind, for instance on a full disk.
    if matches!(kept, Kept::At(kept) if kept.lineage == lineage) {
        return Ok(Ok(()));
    }
    let reached = number(transaction, progress)?;
    // If the commit fails, the file has not this lineage, and counts as a copy.
    Ok(Position { lineage, reached }.replace_in(lock))
}

/// Keeps where the file is, after each commit that must not be lost.
pub(crate) struct Progress {
    lock: Arc<Option<LockFile>>,
    query: Query,
    kept: Option<Position>,
    has_failed: bool,
}

impl Progress {
    pub(crate) fn new(lock: Arc<Option<LockFile>>, query: Query) -> Self {
        Self {
            lock,
            query,
            kept: None,
            has_failed: false,
        }
    }

    /// Where a transaction will be once it has committed; `None` if that is not kept.
    pub(crate) fn after(&self, transaction: &Connection) -> Result<Option<Position>, Error> {
        let Some(query) = self.query.get() else {
            return Ok(None);
        };
        let lineage = match self.kept {
            Some(kept) => Some(kept.lineage),
            None => lineage(transaction)?,
        };
        let Some(lineage) = lineage else {
            return Ok(None);
        };
        let reached = number(transaction, query)?;
        Ok(Some(Position { lineage, reached }))
    }

    /// Keeps where the file is now. The system has it then: it survives a crash of the process.
    ///
    /// A loss of power may undo it, which leaves the file ahead of it.
    pub(crate) fn keep(&mut self, position: Position) {
        if self.kept == Some(position) {
            return;
        }
        match self.write(position) {
            Ok(()) => self.kept = Some(position),
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!(
                    %error,
                    "cannot write to the lock file of the database: an older copy that is put in its place now may not be recognised"
                );
            }
            Err(_) => {}
        }
    }

    fn write(&self, position: Position) -> io::Result<()> {
        let lock = self.lock.as_ref().as_ref();
        lock.map_or(Ok(()), |lock| position.write_to(lock))
    }
}

fn number(connection: &Connection, progress: &str) -> Result<i64, Error> {
    let mut progress = connection.prepare_cached(progress)?;
    Ok(progress.query_row([], |row| row.get(0))?)
}
