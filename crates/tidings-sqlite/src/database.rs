use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::file::{self, DatabaseFile, LockFile};
use crate::progress::{self, Kept, Progress};
use crate::room::Room;
use crate::slot::Slot;
use crate::writer::{Durability, Work, Writer};
use crate::{Error, Fault, connection, migration, reader, writer};

/// Jobs that may wait for the writer before [`Database::write`] makes its caller wait.
const WRITE_QUEUE: usize = 4096;

/// Queries that may wait for a reader before [`Database::read`] makes its caller wait.
const READ_QUEUE: usize = 1024;

/// How long a list may take, unless set otherwise.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a list: a longer one would overflow the clock.
const MAX_LIST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How to open a [`Database`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    readers: usize,
    list_readers: usize,
    list_timeout: Duration,
    exclusive: bool,
    application_id: Option<i32>,
}

impl Default for Options {
    /// Two readers and one for lists, shared with other processes.
    fn default() -> Self {
        Self {
            readers: 2,
            list_readers: 1,
            list_timeout: LIST_TIMEOUT,
            exclusive: false,
            application_id: None,
        }
    }
}

impl Options {
    /// Sets how many threads read; at least one. The default is two.
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Sets how many threads serve [lists](Database::list); at least one. The default is one.
    pub fn with_list_readers(mut self, readers: usize) -> Self {
        self.list_readers = readers.max(1);
        self
    }

    /// Sets how long a [list](Database::list) may take, the wait for a thread included; at most a year.
    /// The default is 5 seconds.
    pub fn with_list_timeout(mut self, timeout: Duration) -> Self {
        self.list_timeout = timeout.min(MAX_LIST_TIMEOUT);
        self
    }

    /// Refuses to open a file that another process has opened this way, by a lock on
    /// `<path>.lock` that ends with the process. Symbolic links lead to the same lock.
    ///
    /// It is released when the database has been closed, or dropped, and its threads have ended.
    pub fn with_exclusive_lock(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Refuses the file of another program, and marks a new file with this
    /// [application id](https://www.sqlite.org/pragma.html#pragma_application_id).
    ///
    /// Without it, the tables of several programs may share the file.
    pub fn with_application_id(mut self, id: i32) -> Self {
        self.application_id = Some(id);
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
    file: Arc<DatabaseFile>,
    room: Arc<Room>,
    /// The threads hold it.
    lock: Weak<Option<LockFile>>,
    kept: Kept,
    progress: progress::Query,
    writes: async_channel::Sender<writer::Request>,
    reads: async_channel::Sender<reader::Request>,
    lists: async_channel::Sender<reader::Request>,
    list_timeout: Duration,
    /// Ends when the last thread has dropped its sender.
    threads: async_channel::Receiver<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.file.path())
            .field("waiting_writes", &self.writes.len())
            .field("waiting_reads", &self.reads.len())
            .field("waiting_lists", &self.lists.len())
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
    /// [`Error::Folder`] when the path leads to a folder; [`Error::NotAFile`] when it leads to a device, or is one that SQLite takes for
    /// something else than a file,
    /// [`Error::Create`] when there is no file and none can be made, [`Error::InUse`] when an
    /// exclusive lock was asked for and another process has it, [`Error::HardLink`] when the file has
    /// another name, [`Error::NotADatabase`] when it is no SQLite database, [`Error::OtherProgram`] when it
    /// has another application id, or another program's tables, [`Error::Unusable`] when the file cannot
    /// be opened.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        Self::open_at(path.as_ref(), options)
    }

    fn open_at(path: &Path, options: &Options) -> Result<Self, Error> {
        let path = file::real_path(path)?;
        let (alive, threads) = async_channel::bounded(1);
        let (writes, write_queue) = async_channel::bounded(WRITE_QUEUE);
        let (reads, read_queue) = async_channel::bounded(READ_QUEUE);
        let (lists, list_queue) = async_channel::bounded(READ_QUEUE);

        file::check_file(&path)?;
        file::create(&path)?;
        // Before the lock, so that a file that is refused gets no lock file beside it. A database in use is
        // not changed by this.
        let writing = connection::open_writer(&path, options.application_id)?;
        let lock = options.exclusive.then(|| file::lock(&path)).transpose()?;
        let kept = Kept::read(lock.as_deref()).map_err(|source| Error::Lock {
            path: file::beside(&path, ".lock"),
            source: Fault::from(source),
        })?;
        // Freed by the last thread, before it counts as ended: what is queued is written before another
        // process may begin.
        let lock = Arc::new(lock);
        let held_lock = Arc::downgrade(&lock);
        let progress = progress::Query::default();
        let file = Arc::new(DatabaseFile::open(path)?);
        let for_reads = std::iter::repeat_n(read_queue, options.readers);
        let for_lists = std::iter::repeat_n(list_queue, options.list_readers);
        for queue in for_reads.chain(for_lists) {
            let reading = connection::open_reader(file.path())?;
            let held = (Arc::clone(&lock), alive.clone());
            spawn("tidings-sqlite-reader", move || {
                reader::run(reading, &queue);
                drop(held);
            })?;
        }
        let keeping = Progress::new(Arc::clone(&lock), Arc::clone(&progress));
        let room = Arc::new(Room::keep(&writing)?);
        let writing = Writer::new(
            writing,
            Arc::clone(&file),
            options.exclusive,
            keeping,
            Arc::clone(&room),
        );
        spawn("tidings-sqlite-writer", move || {
            writing.run(&write_queue);
            drop((lock, alive));
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                file,
                room,
                lock: held_lock,
                kept,
                progress,
                writes,
                reads,
                lists,
                list_timeout: options.list_timeout,
                threads,
            }),
        })
    }

    /// The file, by the path that symbolic links lead to.
    pub fn path(&self) -> &Path {
        self.shared.file.path()
    }

    /// Whether there was room for the last write that the file had to grow for. While there is none, every write
    /// tries again to make it grow.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there was none. Writes that fit into the pages that the file has go on.
    pub fn check_room(&self) -> Result<(), Error> {
        self.shared.room.check()
    }

    /// How many bytes the write-ahead log has. It grows for as long as a reader, of whatever process, holds
    /// an old snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.shared.file.log_length()
    }

    /// Runs a job in the next transaction and returns once its commit is on disk.
    ///
    /// Jobs run one at a time, in the order in which they were queued; those that wait together
    /// share one commit, as many as fit in ten milliseconds. A job that returns an error, or panics, is
    /// rolled back alone. It must not begin or end transactions itself, and should not wait for anything:
    /// all other jobs wait for it.
    ///
    /// # Errors
    ///
    /// The job's own error, or one made from [`Error`] when the database is closed or the commit
    /// fails. [`Error::is_unavailable`] says whether the same call may succeed later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the job is queued does nothing; dropping it later lets the job
    /// run and commit, and only discards the result.
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
        let (slot, work) = Slot::of_write(job);
        let commit = self.commit(durability, work).await;
        slot.written(commit)
    }

    async fn commit(&self, durability: Durability, work: Work) -> Result<(), Error> {
        let (reply, committed) = oneshot::channel();
        let request = writer::Request {
            durability,
            work,
            reply,
        };
        let queued = self.shared.writes.send(request).await;
        queued.map_err(|_| Error::Closed)?;
        committed.await.map_err(|_| Error::Closed)?
    }

    /// Drops a value once the jobs that are queued now have run, and before others can write to the file.
    /// Drops it at once if the database is closed, or the queue is full.
    pub(crate) fn drop_after_writes(&self, value: impl Send + 'static) {
        let mut value = Some(value);
        let work = move |_: &Transaction<'_>| {
            drop(value.take());
            true
        };
        let (reply, _committed) = oneshot::channel();
        let request = writer::Request {
            durability: Durability::Relaxed,
            work: Box::new(work),
            reply,
        };
        // An error drops the request, and the value with it.
        drop(self.shared.writes.try_send(request));
    }

    /// Runs a query on a connection that sees everything committed so far. All statements of a query
    /// see the same state.
    ///
    /// # Errors
    ///
    /// The query's own error, or one made from [`Error`] when the database is closed or the query
    /// panicked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the result; a query that is queued still runs.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (slot, query) = Slot::of_read(query);
        slot.read(ask(&self.shared.reads, None, query).await)
    }

    /// Runs a query whose length depends on what a caller asks: on threads that serve nothing else, and
    /// for a [limited time](Options::with_list_timeout). It delays no [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// [`Error::TooSlow`] when the time is over, also while the query waits for a thread or for the
    /// disk; else as for [`read`](Self::read).
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// As for [`read`](Self::read).
    pub async fn list<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let deadline = Instant::now() + self.shared.list_timeout;
        let (slot, query) = Slot::of_read(query);
        let listed = ask(&self.shared.lists, Some(deadline), query);
        let in_time = timeout_at(deadline, listed).await;
        slot.read(in_time.unwrap_or(Err(Error::TooSlow)))
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

    /// Whether the file, when it was opened, was a copy in the place of the one that was here before: an older one that was
    /// put back, or one that was brought from elsewhere. What was committed after the copy is gone, and its numbers would
    /// be given once more.
    ///
    /// `progress` is a query of a number from 0 that grows with each such commit. It is compared with what
    /// [`keep_progress`](Self::keep_progress) has kept in the lock file, and not asked any more after that. A file beside
    /// which nothing was kept counts as a copy if its number is not 0; without an
    /// [exclusive lock](Options::with_exclusive_lock) nothing is kept, and no file does.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`] when the query fails, [`Error::Closed`].
    pub async fn is_copy(&self, progress: &'static str) -> Result<bool, Error> {
        if self.shared.progress.get().is_some() {
            return Ok(false);
        }
        let kept = self.shared.kept;
        self.read(move |connection| kept.is_of_another(connection, progress))
            .await
    }

    /// Keeps the number of a query in the lock file from now on, after each commit of [`write`](Self::write) and before
    /// its callers know of it. One query does for a file: later calls change nothing.
    ///
    /// Until then, a copy counts as one each time it is opened: what has to be done for it can be done in several
    /// transactions.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write), and [`Error::Lock`] when the lock file cannot be written.
    pub async fn keep_progress(&self, progress: &'static str) -> Result<(), Error> {
        let Shared { lock, kept, .. } = &*self.shared;
        let (lock, kept, query) = (lock.clone(), *kept, Arc::clone(&self.shared.progress));
        let path = file::beside(self.path(), ".lock");
        if query.get().is_some() {
            return Ok(());
        }
        self.write(move |transaction| {
            let lock = lock.upgrade().ok_or(Error::Closed)?;
            let Some(lock) = lock.as_ref() else {
                return Ok(());
            };
            progress::begin(transaction, progress, kept, lock)?.map_err(|source| Error::Lock {
                path,
                source: Fault::from(source),
            })
        })
        .await?;
        // Not before it has committed: else a second call would not begin anew.
        query.get_or_init(|| progress);
        Ok(())
    }

    /// Refuses new calls, finishes those that are queued, and waits until the threads have ended.
    ///
    /// Closing twice is harmless; calls on any clone return [`Error::Closed`] from now on.
    pub async fn close(&self) {
        self.shared.writes.close();
        self.shared.reads.close();
        self.shared.lists.close();
        // Nothing is ever sent: the channel ends when the last thread has dropped its end.
        while self.shared.threads.recv().await.is_ok() {}
    }
}

/// Has a query run by the threads of a queue.
async fn ask(
    queue: &async_channel::Sender<reader::Request>,
    deadline: Option<Instant>,
    query: reader::Query,
) -> Result<(), Error> {
    let (reply, replied) = oneshot::channel();
    let request = reader::Request {
        query,
        deadline,
        reply,
    };
    queue.send(request).await.map_err(|_| Error::Closed)?;
    replied.await.map_err(|_| Error::Panicked)?
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|source| Error::Thread(source.into()))
}
