//! The file itself: its path, its lock, and whether it is still the one that was opened.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use crate::{Error, Fault, connection};

/// Links that a path may go through, as for the operating system.
const MAX_LINKS: usize = 40;

/// In how many looks in a row the log must lack the same. One is not enough: after it, others may have written as
/// much again as there was.
const LACKS: u32 = 5;

/// How often to look at a log that others write meanwhile.
const MAX_LOOKS: u32 = 1000;

/// A database file and its write-ahead log, as they were found.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    log_path: PathBuf,
    id: FileId,
    /// The log, once there is one; it stays as long as a connection is open.
    log: OnceLock<Log>,
    /// The greatest lengths so far. A file that is shorter was truncated from outside, unless SQLite did
    /// it itself.
    length: AtomicU64,
    log_length: AtomicU64,
}

impl DatabaseFile {
    /// Looks at a file that exists.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let metadata = std::fs::metadata(&path).map_err(|source| Error::Create {
            path: path.clone(),
            source: Fault::from(source),
        })?;
        Ok(Self {
            log_path: beside(&path, "-wal"),
            id: FileId::of(&metadata),
            log: OnceLock::new(),
            length: AtomicU64::new(metadata.len()),
            log_length: AtomicU64::new(0),
            path,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes the file had when it was last [checked](Self::check_with).
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// How many bytes the write-ahead log has.
    pub(crate) fn log_length(&self) -> u64 {
        std::fs::metadata(&self.log_path).map_or(0, |metadata| metadata.len())
    }

    /// Checks that file and log are still those that were opened, in full. Asks SQLite itself where
    /// something is shorter than it was: it may have done that. Returns the length of the log.
    pub(crate) fn check_with(&self, connection: &Connection) -> Result<u64, Error> {
        let (length, log_length) = self.lengths()?;
        if length < self.length() && !self.is_whole(length) {
            return Err(self.changed());
        }
        // A commit that was under way when the log was truncated has made it long again.
        let is_doubtful = log_length < self.log_length.load(Ordering::Relaxed)
            || log_length > 0 && !self.has_log_begin();
        if is_doubtful && !self.is_log_whole(connection)? {
            return Err(self.changed());
        }
        self.length.store(length, Ordering::Relaxed);
        self.log_length.store(log_length, Ordering::Relaxed);
        Ok(log_length)
    }

    fn lengths(&self) -> Result<(u64, u64), Error> {
        let changed = |_: io::Error| self.changed();
        let file = std::fs::metadata(&self.path).map_err(changed)?;
        if FileId::of(&file) != self.id {
            return Err(self.changed());
        }
        let log = match std::fs::metadata(&self.log_path) {
            Ok(log) => log,
            // It is made with the first transaction.
            Err(_) if self.log.get().is_none() => return Ok((file.len(), 0)),
            Err(_) => return Err(self.changed()),
        };
        if self.opened_log()?.id != FileId::of(&log) {
            return Err(self.changed());
        }
        Ok((file.len(), log.len()))
    }

    fn opened_log(&self) -> Result<&Log, Error> {
        if let Some(log) = self.log.get() {
            return Ok(log);
        }
        let log = Log::open(&self.log_path).map_err(|_| self.changed())?;
        Ok(self.log.get_or_init(|| log))
    }

    fn has_log_begin(&self) -> bool {
        self.log.get().is_some_and(Log::has_begin)
    }

    /// Whether the log has everything that its index counts.
    ///
    /// SQLite makes the index empty before it empties the log, and counts what it has written. So what is lacking
    /// for a moment only, while the index changes, was taken away by SQLite for another handle.
    fn is_log_whole(&self, connection: &Connection) -> Result<bool, Error> {
        let mut lacks = 0;
        let mut needed = needed_log(connection)?;
        for _ in 0..MAX_LOOKS {
            let is_whole = |bytes| self.log_length() >= bytes && self.has_log_begin();
            if needed.is_some_and(|bytes| bytes == 0 || is_whole(bytes)) {
                return Ok(true);
            }
            let still_needed = needed_log(connection)?;
            lacks = if needed.is_some() && still_needed == needed {
                lacks + 1
            } else {
                0
            };
            if lacks == LACKS {
                return Ok(false);
            }
            needed = still_needed;
        }
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        Err(rusqlite::Error::SqliteFailure(busy, None).into())
    }

    /// Whether a file that has become shorter is a whole database: it had room that was not needed, or another program
    /// has compacted it. A connection that has just been opened has nothing in its cache that could hide a loss.
    fn is_whole(&self, length: u64) -> bool {
        let check = || {
            let connection = connection::open_reader(&self.path)?;
            let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, u32>(0));
            let pages = number("PRAGMA page_count")?;
            let size = u64::from(pages) * u64::from(number("PRAGMA page_size")?);
            // All of it is there, and looking through a large one takes minutes.
            if pages > 0 && size <= length {
                return Ok(true);
            }
            let check = "PRAGMA quick_check(1)";
            let found: String = connection.query_row(check, [], |row| row.get(0))?;
            Ok::<_, rusqlite::Error>(pages > 0 && found == "ok")
        };
        check().unwrap_or(false)
    }

    fn changed(&self) -> Error {
        Error::FileChanged {
            path: self.path.clone(),
        }
    }
}

/// The write-ahead log as it was found. SQLite takes no lock on it that closing another handle would end.
#[derive(Debug)]
struct Log {
    id: FileId,
    file: File,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            id: FileId::of(&file.metadata()?),
            file,
        })
    }

    /// Whether it begins as every log does, with one of two
    /// [numbers](https://www.sqlite.org/fileformat2.html#walformat).
    #[cfg(unix)]
    fn has_begin(&self) -> bool {
        let mut begin = [0; 4];
        let read = std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut begin, 0);
        read.is_ok() && matches!(u32::from_be_bytes(begin), 0x377f_0682 | 0x377f_0683)
    }

    #[cfg(not(unix))]
    fn has_begin(&self) -> bool {
        true
    }
}

/// How long the log must be at least for what is in it, as the index in shared memory has it. `None` while
/// another process writes the index.
fn needed_log(connection: &Connection) -> Result<Option<u64>, Error> {
    let checkpoint = "PRAGMA wal_checkpoint(NOOP)";
    let (is_busy, frames): (bool, i64) =
        connection.query_row(checkpoint, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_busy {
        return Ok(None);
    }
    let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    // Negative without a log.
    let (frames, page) = (u64::try_from(frames), u64::try_from(page));
    // https://www.sqlite.org/fileformat2.html#walformat
    Ok(Some(match (frames, page) {
        (Ok(frames @ 1..), Ok(page)) => 32 + frames * (24 + page),
        _ => 0,
    }))
}

#[cfg(unix)]
fn has_other_names(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) > 1
}

#[cfg(not(unix))]
fn has_other_names(_metadata: &Metadata) -> bool {
    false
}

/// What differs between two files of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    #[cfg(not(unix))]
    fn of(_metadata: &Metadata) -> Self {
        Self {}
    }
}

/// The path of the file itself, whatever links lead to it: its lock must not depend on the way.
///
/// Refuses the names of databases without a file, of which every connection would get one of its own, and
/// [URIs](https://www.sqlite.org/uri.html), which can name such a database too.
///
/// # Errors
///
/// [`Error::NotAFile`] for these, [`Error::Create`] when the folder of the file cannot be found.
pub fn real_path(path: &Path) -> Result<PathBuf, Error> {
    let name = path.as_os_str().as_encoded_bytes();
    if name.is_empty() || name == b":memory:" || name.starts_with(b"file:") {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let refused = |source| Error::Create {
        path: path.to_owned(),
        source,
    };
    let failed = |error| refused(Fault::from(error));
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::canonicalize(&target) {
            Ok(real) => return Ok(real),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            Err(_) => {}
        }
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let Ok(link) = std::fs::read_link(&target) else {
            let real = std::fs::canonicalize(folder).map_err(failed)?;
            return Ok(real.join(target.file_name().unwrap_or_default()));
        };
        // A link to a file that does not exist yet.
        target = folder.join(link);
    }
    Err(refused(Fault::Links))
}

/// Fewest bytes of a database: one page of the smallest size.
const MIN_DATABASE_BYTES: u64 = 512;

/// Refuses what cannot be a database, before anything is made beside it. Changes nothing.
///
/// # Errors
///
/// As for [`Database::open`](crate::Database::open), if the path leads to a folder or something else that is no file,
/// or the file has another name or is too short.
pub fn check_file(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::metadata(path) else {
        // It will be made, or the attempt says why not.
        return Ok(());
    };
    let path = path.to_owned();
    if metadata.is_dir() {
        return Err(Error::Folder { path });
    }
    if !metadata.is_file() {
        return Err(Error::NotAFile { path });
    }
    if has_other_names(&metadata) {
        return Err(Error::HardLink { path });
    }
    // SQLite would overwrite a file that is shorter than a page.
    if (1..MIN_DATABASE_BYTES).contains(&metadata.len()) {
        return Err(Error::NotADatabase { path });
    }
    Ok(())
}

/// Makes an empty file, which is an empty database, unless there is one.
///
/// SQLite would make it readable for others. A file that exists is not even opened: closing it again would
/// take away the locks of every other connection of this process.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    match owner_only().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Create {
            path: path.to_owned(),
            source: match Fault::from(source) {
                // So says a file system that takes no files, such as /proc.
                Fault::NoFolder if path.parent().is_some_and(Path::is_dir) => Fault::Forbidden,
                fault => fault,
            },
        }),
    }
}

/// A file whose lock ends when it is dropped.
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    /// Opens it. It is not locked yet.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = owner_only();
        let file = options.read(true).create(true).truncate(false).open(path)?;
        Ok(Self(file))
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockFile {
    /// Closing the file is not enough: a child that this process is just starting has a copy of it
    /// until its own program begins, and would keep the lock.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot unlock the lock file, it stays locked until the process ends"
            );
        }
    }
}

/// Takes the lock that one process may have; the operating system frees it with the process.
pub(crate) fn lock(path: &Path) -> Result<LockFile, Error> {
    let lock_path = beside(path, ".lock");
    let broken = |source| Error::Lock {
        path: lock_path.clone(),
        source: Fault::from(source),
    };
    let file = LockFile::open(&lock_path).map_err(broken)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(broken(source)),
    }
}

/// Opens for writing, and makes new files for the user of this process alone.
pub(crate) fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a child has it that another thread is just starting.
    #[test]
    fn regression_a_copy_of_the_lock_file_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let held = lock(&path).unwrap();
        let copy = held.try_clone().unwrap();
        drop(held);
        lock(&path).unwrap();
        drop(copy);
    }

    /// Other handles write to it at any time, and empty it when they close.
    #[test]
    fn regression_a_log_that_another_handle_writes_and_empties_is_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        create(&path).unwrap();
        let connection = connection::open_writer(&path, None).unwrap();
        connection.execute_batch("CREATE TABLE item (n)").unwrap();
        let file = DatabaseFile::open(path.clone()).unwrap();
        let other = std::thread::spawn(move || {
            let connection = connection::open_writer(&path, None).unwrap();
            let write_and_empty = "INSERT INTO item VALUES (1); INSERT INTO item VALUES (2);
                 PRAGMA wal_checkpoint(TRUNCATE)";
            for _ in 0..1000 {
                connection.execute_batch(write_and_empty).unwrap();
            }
        });
        while !other.is_finished() {
            file.check_with(&connection).unwrap();
        }
        other.join().unwrap();
    }
}
