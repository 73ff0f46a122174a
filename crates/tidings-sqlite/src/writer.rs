//! The thread that owns the only writing connection, and its group commit.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, ErrorCode, Transaction, TransactionBehavior, ffi};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::Error;
use crate::file::DatabaseFile;
use crate::log::LogKeeper;
use crate::progress::Progress;
use crate::room::Room;

/// Most jobs that share one commit. Past a few hundred the fsync is no longer what a job pays for,
/// and a larger batch only makes its first caller wait longer.
const MAX_BATCH: usize = 512;

/// A transaction ends with the job that takes it past this time. It holds the write lock of the file, and
/// other processes wait for that for five seconds at most.
const MAX_BATCH_TIME: Duration = Duration::from_millis(10);

/// After a batch that was ended by its time, other processes have so long to take the lock, for which they
/// look from time to time only.
const TURN_OF_OTHERS: Duration = Duration::from_millis(1);

/// What a commit has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Loss of power: the commit is on disk before the reply.
    Full,
    /// A crash of the process. After a loss of power the newest commits may be gone, never a part
    /// of one.
    Relaxed,
}

/// What a job does inside the transaction, once; `false` asks for its rollback.
pub(crate) type Work = Box<dyn FnMut(&Transaction<'_>) -> bool + Send>;

/// A job in the queue.
pub(crate) struct Request {
    pub(crate) durability: Durability,
    pub(crate) work: Work,
    /// Takes the outcome of the commit.
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// The connection that writes.
pub(crate) struct Writer {
    connection: Connection,
    file: Arc<DatabaseFile>,
    /// Whether no other process writes to the file.
    is_exclusive: bool,
    synchronous: Durability,
    log: LogKeeper,
    room: Arc<Room>,
    progress: Progress,
}

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        file: Arc<DatabaseFile>,
        is_exclusive: bool,
        progress: Progress,
        room: Arc<Room>,
    ) -> Self {
        Self {
            connection,
            file,
            is_exclusive,
            synchronous: Durability::Full,
            log: LogKeeper::default(),
            room,
            progress,
        }
    }

    /// Serves the queue until it is closed and empty.
    pub(crate) fn run(mut self, queue: &async_channel::Receiver<Request>) {
        let mut waiting = VecDeque::with_capacity(MAX_BATCH);
        while let Ok(request) = queue.recv_blocking() {
            waiting.push_back(request);
            loop {
                while waiting.len() < MAX_BATCH {
                    let Ok(request) = queue.try_recv() else { break };
                    waiting.push_back(request);
                }
                if waiting.is_empty() {
                    break;
                }
                self.commit(&mut waiting);
            }
        }
        self.close();
    }

    /// Moves the log into the file, unless one of the two was changed from outside: what is there may be all
    /// that can still be saved, and another file must not get pages of this one.
    fn close(&self) {
        let closing = "PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)";
        let outcome = self
            .file
            .check_with(&self.connection)
            .and_then(|_log| Ok(self.connection.execute_batch(closing)?));
        match outcome {
            Ok(()) => {}
            Err(error @ Error::FileChanged { .. }) => tracing::warn!(
                error = &error as &dyn StdError,
                "leaving the write-ahead log of SQLite as it is: it belongs to the earlier file, so remove it (-wal, -shm) before \
                 the next start on another one"
            ),
            Err(error) => tracing::warn!(
                error = &error as &dyn StdError,
                "cannot empty the write-ahead log of SQLite, leaving it to the next start"
            ),
        }
    }

    /// Commits one batch of waiting jobs. Those that have not run stay: a batch ends by its time, or by a
    /// job that loses its transaction.
    fn commit(&mut self, waiting: &mut VecDeque<Request>) {
        let wanted = strictest(waiting);
        let outcome = self
            .file
            .check_with(&self.connection)
            .and_then(|_log| set_synchronous(&self.connection, &mut self.synchronous, wanted))
            .and_then(|()| {
                let Self {
                    connection,
                    file,
                    progress,
                    room,
                    ..
                } = self;
                let progress = (wanted == Durability::Full).then_some(progress);
                commit_batch(connection, file, room, progress, waiting)
            });
        match outcome {
            Ok(Log::Bytes(bytes)) => self.log.keep_short(&self.connection, bytes),
            Ok(Log::Unchanged) => {}
            Ok(Log::NoRoom) => {
                if self.file.check_with(&self.connection).is_ok() {
                    self.log.make_room(&self.connection);
                }
            }
            Err(error) => {
                // As with a commit that failed.
                tracing::debug!(
                    error = &error as &dyn StdError,
                    jobs = waiting.len(),
                    "cannot begin a transaction in SQLite, its callers get the error"
                );
                finish_all(waiting.drain(..), &Err(error));
            }
        }
        if !waiting.is_empty() && !self.is_exclusive {
            pause(TURN_OF_OTHERS);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, which serves no other caller meanwhile"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn strictest(requests: &VecDeque<Request>) -> Durability {
    if requests
        .iter()
        .any(|request| request.durability == Durability::Full)
    {
        Durability::Full
    } else {
        Durability::Relaxed
    }
}

/// With a write-ahead log, `NORMAL` differs from `FULL` only in leaving out the fsync at commit.
fn set_synchronous(
    connection: &Connection,
    current: &mut Durability,
    wanted: Durability,
) -> Result<(), Error> {
    if *current != wanted {
        connection.execute_batch(match wanted {
            Durability::Full => "PRAGMA synchronous = FULL",
            Durability::Relaxed => "PRAGMA synchronous = NORMAL",
        })?;
        *current = wanted;
    }
    Ok(())
}

/// How the log is after a batch.
enum Log {
    /// Its length.
    Bytes(u64),
    /// The commit, or a job, found no room to make it longer.
    NoRoom,
    /// It has nothing new.
    Unchanged,
}

/// Runs waiting jobs in one transaction until its time is up, commits, and sends the results of those that
/// ran.
///
/// With `progress`, where the file is then is kept: not of a commit that may be lost with the power.
///
/// Returns what the log needs. An error means that no transaction could be started, or not prepared for
/// jobs, and that no job has run.
fn commit_batch(
    connection: &mut Connection,
    file: &DatabaseFile,
    room: &Room,
    mut progress: Option<&mut Progress>,
    waiting: &mut VecDeque<Request>,
) -> Result<Log, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let size = room.size(&transaction)?;
    let mut savepoint = Savepoint::prepare(&transaction)?;
    let begun = Instant::now();
    let mut ran = Vec::with_capacity(waiting.len());
    while let Some(mut job) = waiting.pop_front() {
        let kept = savepoint.run(&mut job.work);
        ran.push(job);
        if let Err(error) = kept {
            // The transaction is gone, and with it the work of the jobs before.
            drop(savepoint);
            drop(transaction);
            finish_all(ran.into_iter(), &Err(error));
            // Mostly because the job has changed more than the cache holds, which is written to the log before
            // the commit. The error of its statement is the job's own.
            return Ok(Log::NoRoom);
        }
        if begun.elapsed() >= MAX_BATCH_TIME || room.is_scarce() {
            break;
        }
    }
    drop(savepoint);
    if let Err(error) = room.reserve(&transaction, file.length(), size) {
        drop(transaction);
        finish_all(ran.into_iter(), &Err(error));
        return Ok(Log::Unchanged);
    }
    let position = match &progress {
        Some(progress) => progress.after(&transaction),
        None => Ok(None),
    };
    let mut has_room = true;
    let outcome = position.and_then(|position| {
        let committed = transaction.commit();
        has_room = !committed.as_ref().is_err_and(found_no_room);
        committed?;
        Ok(position)
    });
    // A commit into a file that cannot be found again does not count.
    let outcome = outcome.and_then(|position| {
        let log_bytes = file.check_with(connection)?;
        if let (Some(progress), Some(position)) = (&mut progress, position) {
            progress.keep(position);
        }
        Ok(log_bytes)
    });
    if let Err(error) = &outcome {
        // Each job returns the error to its caller, which reports it: a full disk fails every commit.
        tracing::debug!(
            error = error as &dyn StdError,
            jobs = ran.len(),
            "cannot commit a transaction in SQLite, its callers get the error"
        );
    }
    let log_bytes = outcome.as_ref().copied().unwrap_or(0);
    finish_all(ran.into_iter(), &outcome.map(drop));
    Ok(if has_room {
        Log::Bytes(log_bytes)
    } else {
        Log::NoRoom
    })
}

/// Whether a commit failed because its disk is full, or its file at the limit of a quota, which SQLite takes for
/// another failure.
fn found_no_room(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_WRITE
    })
}

/// What the jobs of a transaction run in, one after the other, by statements that are prepared once for all of them.
struct Savepoint<'a> {
    transaction: &'a Transaction<'a>,
    begin: CachedStatement<'a>,
    release: CachedStatement<'a>,
}

impl<'a> Savepoint<'a> {
    fn prepare(transaction: &'a Transaction<'a>) -> Result<Self, Error> {
        Ok(Self {
            transaction,
            begin: transaction.prepare_cached("SAVEPOINT job")?,
            release: transaction.prepare_cached("RELEASE job")?,
        })
    }

    /// Runs one job so that its failure, or its panic, undoes its own work and no other.
    ///
    /// An error means that the whole transaction is lost: SQLite rolls back on a full disk, an I/O
    /// error or exhausted memory.
    fn run(&mut self, work: &mut Work) -> Result<(), Error> {
        let transaction = self.transaction;
        self.begin.execute([])?;
        let ran = catch_unwind(AssertUnwindSafe(|| work(transaction)));
        let succeeded = ran.unwrap_or_else(|_| {
            tracing::error!("a database job panicked and is rolled back");
            false
        });
        if transaction.is_autocommit() {
            return Err(Error::RolledBack);
        }
        if !succeeded {
            transaction.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        self.release.execute([])?;
        Ok(())
    }
}

fn finish_all(jobs: impl Iterator<Item = Request>, outcome: &Result<(), Error>) {
    for job in jobs {
        // The caller may have dropped its future; its job is committed all the same.
        drop(job.reply.send(outcome.clone()));
    }
}
