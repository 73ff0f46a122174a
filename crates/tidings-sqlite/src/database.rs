use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

use crate::writer::{Call, Durability, Request};
use crate::{Error, connection, migration, reader, writer};

/// Jobs that may wait for the writer before [`Database::write`] makes its caller wait.
const WRITE_QUEUE: usize = 4096;

/// Queries that may wait for a reader before [`Database::read`] makes its caller wait.
const READ_QUEUE: usize = 1024;

/// How to open a [`Database`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    readers: usize,
    exclusive: bool,
}

impl Default for Options {
    /// Two readers, shared with other processes.
    fn default() -> Self {
        Self {
            readers: 2,
            exclusive: false,
        }
    }
}

impl Options {
    /// Sets how many threads read; at least one. The default is two.
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Refuses to open a file that another process has opened this way, by a lock on
    /// `<path>.lock` that ends with the process.
    pub fn with_exclusive_lock(mut self) -> Self {
        self.exclusive = true;
        self
    }
}

/// A SQLite file with one writer thread, which commits in groups, and several reader threads.
///
/// Clones share the same file and threads. When the last clone is dropped the threads finish what
/// is queued and end; [`close`](Self::close) does the same and waits.
#[derive(Debug, Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writes: async_channel::Sender<Request>,
    reads: async_channel::Sender<reader::Query>,
    /// Ends when the last thread has dropped its sender.
    threads: async_channel::Receiver<()>,
    /// Held for as long as the database is open; the operating system frees it with the process.
    _lock: Option<File>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .field("waiting_writes", &self.writes.len())
            .field("waiting_reads", &self.reads.len())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the file, creating it when there is none, and starts the threads.
    ///
    /// Blocks on the file system for some milliseconds. On Unix a new file, and what SQLite and the
    /// lock put beside it, belong to the user of this process alone (mode 0600); a file that exists
    /// keeps its mode, and SQLite gives the same to the files beside it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`] when the path is one that SQLite takes for something else than a file,
    /// [`Error::Create`] when there is no file and none can be made, [`Error::InUse`] when an
    /// exclusive lock was asked for and another process has it, [`Error::Sqlite`] when the file
    /// cannot be opened or is no database.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let path = path.as_ref();
        check_path(path)?;
        let lock = options.exclusive.then(|| lock_beside(path)).transpose()?;
        let (alive, threads) = async_channel::bounded(1);
        let (writes, write_queue) = async_channel::bounded(WRITE_QUEUE);
        let (reads, read_queue) = async_channel::bounded(READ_QUEUE);

        create(path)?;
        let writing = connection::open_writer(path)?;
        for _ in 0..options.readers {
            let reading = connection::open_reader(path)?;
            let (queue, alive) = (read_queue.clone(), alive.clone());
            spawn("tidings-sqlite-reader", move || {
                reader::run(&reading, &queue);
                drop(alive);
            })?;
        }
        spawn("tidings-sqlite-writer", move || {
            writer::run(writing, &write_queue);
            drop(alive);
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                writes,
                reads,
                threads,
                _lock: lock,
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs a job in the next transaction and answers once its commit is on disk.
    ///
    /// Jobs run one at a time, in the order in which they were queued; those that wait together
    /// share one commit. A job that returns an error, or panics, is rolled back alone. It must not
    /// begin or end transactions itself, and should not wait for anything: everyone queues behind
    /// it.
    ///
    /// # Errors
    ///
    /// The job's own error, or one made from [`Error`] when the database is closed or the commit
    /// fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the job is queued does nothing; dropping it later lets the job
    /// run and commit, and only discards the answer.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.submit(Durability::Full, job).await
    }

    /// Runs a job like [`write`](Self::write), for work whose loss is harmless.
    ///
    /// The commit survives a crash of the process. A loss of power may undo the newest such
    /// commits, whole and in order, up to the next one of [`write`](Self::write). In exchange it
    /// waits for no fsync.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// As for [`write`](Self::write).
    pub async fn write_relaxed<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.submit(Durability::Relaxed, job).await
    }

    async fn submit<T, E, F>(&self, durability: Durability, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (call, answer) = Call::new(job);
        let request = Request {
            durability,
            job: Box::new(call),
        };
        self.shared
            .writes
            .send(request)
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs a query on a connection that sees everything committed so far.
    ///
    /// # Errors
    ///
    /// The query's own error, or one made from [`Error`] when the database is closed or the query
    /// panicked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer; a query that is queued still runs.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let query: reader::Query = Box::new(move |connection| {
            // The caller may have gone: then nobody wants the answer.
            drop(reply.send(query(connection)));
        });
        self.shared
            .reads
            .send(query)
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Panicked)?
    }

    /// Brings the tables of one component up to date: runs those of `steps` that the file has not
    /// seen, in order, in one transaction.
    ///
    /// A step that has been released is never changed; a change is a step at the end.
    ///
    /// # Errors
    ///
    /// [`Error::NewerSchema`] when the file has seen more steps than there are, [`Error::Sqlite`]
    /// when a step fails.
    pub async fn migrate(
        &self,
        component: &'static str,
        steps: &'static [&'static str],
    ) -> Result<(), Error> {
        self.write(move |transaction| migration::apply(transaction, component, steps))
            .await
    }

    /// Refuses new calls, finishes those that are queued, and waits until the threads have ended.
    ///
    /// Closing twice is harmless; calls on any clone answer [`Error::Closed`] from now on.
    pub async fn close(&self) {
        self.shared.writes.close();
        self.shared.reads.close();
        // Nothing is ever sent: the channel ends when the last thread has dropped its end.
        while self.shared.threads.recv().await.is_ok() {}
    }
}

/// Refuses the names of databases without a file, of which every connection would get one of its
/// own, and [URIs](https://www.sqlite.org/uri.html), which can name such a database too.
fn check_path(path: &Path) -> Result<(), Error> {
    let name = path.as_os_str().as_encoded_bytes();
    if name.is_empty() || name == b":memory:" || name.starts_with(b"file:") {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Makes an empty file, which is an empty database, unless there is one.
///
/// SQLite would make it readable for others. A file that exists is not even opened: closing it
/// again would take away the locks of every other connection of this process.
fn create(path: &Path) -> Result<(), Error> {
    match owner_only().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Create {
            path: path.to_owned(),
            source: Arc::new(source),
        }),
    }
}

/// Opens for writing, and makes what it makes for the user of this process alone.
fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn lock_beside(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let broken = |source| Error::Lock {
        path: lock_path.clone(),
        source: Arc::new(source),
    };
    let file = owner_only()
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(broken)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(broken(source)),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|source| Error::Thread(Arc::new(source)))
}
