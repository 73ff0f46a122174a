//! The way of a result back from a thread. What queues, runs and finishes jobs knows nothing of the type of their
//! results, and so is compiled once, and not for every type.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};

use crate::Error;
use crate::reader::Query;
use crate::writer::Work;

/// Where a job puts its result, and its caller finds it.
pub(crate) struct Slot<T, E>(Arc<Mutex<Option<Result<T, E>>>>);

impl<T, E> Slot<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    /// A slot, and a job that fills it.
    pub(crate) fn of_write<F>(job: F) -> (Self, Work)
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (slot, filled) = Self::pair();
        let mut job = Some(job);
        let work = move |transaction: &Transaction<'_>| {
            let job = job.take();
            job.is_some_and(|job| filled.fill(job(transaction)))
        };
        (slot, Box::new(work))
    }

    /// A slot, and a query that fills it.
    pub(crate) fn of_read<F>(query: F) -> (Self, Query)
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (slot, filled) = Self::pair();
        (
            slot,
            Box::new(move |connection| filled.fill(query(connection))),
        )
    }

    fn pair() -> (Self, Self) {
        let slot = Arc::new(Mutex::new(None));
        (Self(Arc::clone(&slot)), Self(slot))
    }

    /// Returns whether the job has succeeded.
    fn fill(&self, result: Result<T, E>) -> bool {
        let has_succeeded = result.is_ok();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        has_succeeded
    }

    fn take(&self) -> Option<Result<T, E>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take()
    }

    /// The result of the job if the commit succeeded or the job itself failed, otherwise the failure of the commit.
    pub(crate) fn written(&self, commit: Result<(), Error>) -> Result<T, E> {
        match (self.take(), commit) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(Error::Panicked.into()),
        }
    }

    /// The result of the query, if it was run as it should.
    pub(crate) fn read(&self, run: Result<(), Error>) -> Result<T, E> {
        run?;
        self.take().unwrap_or_else(|| Err(Error::Panicked.into()))
    }
}
