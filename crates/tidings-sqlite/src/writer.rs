//! The thread that owns the only writing connection, and its group commit.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::Error;

/// Most jobs that share one commit. Past a few hundred the fsync is no longer what a job pays for,
/// and a larger batch only makes its first caller wait longer.
const MAX_BATCH: usize = 512;

/// What a commit has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Loss of power: the commit is on disk before the answer.
    Full,
    /// A crash of the process. After a loss of power the newest commits may be gone, never a part
    /// of one.
    Relaxed,
}

/// A job in the queue.
pub(crate) struct Request {
    pub(crate) durability: Durability,
    pub(crate) job: Box<dyn Job>,
}

/// Work for the writer. It runs inside the transaction, and is answered when the fate of the
/// commit is known.
pub(crate) trait Job: Send {
    /// Does the work; `false` asks for its rollback.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;

    /// Tells the caller how it ended: its own result if the commit succeeded or the job itself
    /// failed, else the failure of the commit.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

/// The job of one call to [`Database::write`](crate::Database::write).
pub(crate) struct Call<F, T, E> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Call<F, T, E> {
    pub(crate) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        let call = Self {
            work: Some(work),
            result: None,
            reply,
        };
        (call, answer)
    }
}

impl<F, T, E> Job for Call<F, T, E>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let result = work(transaction);
        let succeeded = result.is_ok();
        self.result = Some(result);
        succeeded
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let answer = match (self.result, commit) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(Error::Panicked.into()),
        };
        // A caller that went away does not want the answer; its job is committed all the same.
        drop(self.reply.send(answer));
    }
}

/// Serves the queue until it is closed and empty.
pub(crate) fn run(mut connection: Connection, queue: &async_channel::Receiver<Request>) {
    let mut synchronous = Durability::Full;
    let mut waiting = VecDeque::with_capacity(MAX_BATCH);
    while let Ok(request) = queue.recv_blocking() {
        waiting.push_back(request);
        while waiting.len() < MAX_BATCH {
            let Ok(request) = queue.try_recv() else { break };
            waiting.push_back(request);
        }
        // A batch that lost its transaction half-way leaves jobs that have not run: they go on in
        // a transaction of their own.
        while !waiting.is_empty() {
            let outcome = set_synchronous(&connection, &mut synchronous, strictest(&waiting))
                .and_then(|()| commit_batch(&mut connection, &mut waiting));
            if let Err(error) = outcome {
                tracing::error!(
                    error = &error as &dyn StdError,
                    jobs = waiting.len(),
                    "no transaction could be started"
                );
                answer_all(waiting.drain(..).map(|request| request.job), &Err(error));
            }
        }
    }
    if let Err(error) = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)")
    {
        tracing::debug!(
            error = &error as &dyn StdError,
            "the closing checkpoint is left to the next start"
        );
    }
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

/// Runs waiting jobs in one transaction, commits, and answers those that ran.
///
/// An error means that no transaction could be started, and that no job has run.
fn commit_batch(connection: &mut Connection, waiting: &mut VecDeque<Request>) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ran = Vec::with_capacity(waiting.len());
    while let Some(Request { mut job, .. }) = waiting.pop_front() {
        let kept = run_in_savepoint(&transaction, job.as_mut());
        ran.push(job);
        if let Err(error) = kept {
            // The transaction is gone, and with it the work of the jobs before.
            drop(transaction);
            answer_all(ran.into_iter(), &Err(error));
            return Ok(());
        }
    }
    let outcome = transaction.commit().map_err(Error::from);
    if let Err(error) = &outcome {
        tracing::error!(
            error = error as &dyn StdError,
            jobs = ran.len(),
            "a commit failed"
        );
    }
    answer_all(ran.into_iter(), &outcome);
    Ok(())
}

/// Runs one job so that its failure, or its panic, undoes its own work and nobody else's.
///
/// An error means that the whole transaction is lost: SQLite rolls back on a full disk, an I/O
/// error or exhausted memory.
fn run_in_savepoint(transaction: &Transaction<'_>, job: &mut dyn Job) -> Result<(), Error> {
    transaction.prepare_cached("SAVEPOINT job")?.execute([])?;
    let succeeded = catch_unwind(AssertUnwindSafe(|| job.run(transaction))).unwrap_or_else(|_| {
        tracing::error!("a database job panicked and is rolled back");
        false
    });
    if transaction.is_autocommit() {
        return Err(Error::RolledBack);
    }
    if !succeeded {
        transaction.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    transaction.prepare_cached("RELEASE job")?.execute([])?;
    Ok(())
}

fn answer_all(jobs: impl Iterator<Item = Box<dyn Job>>, outcome: &Result<(), Error>) {
    for job in jobs {
        job.answer(outcome.clone());
    }
}
