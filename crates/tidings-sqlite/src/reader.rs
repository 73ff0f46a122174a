//! The threads that read, each with a connection of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::Error;

/// What a query does on a snapshot; `false` if it failed.
pub(crate) type Query = Box<dyn FnOnce(&Connection) -> bool + Send>;

/// A query in the queue.
pub(crate) struct Request {
    pub(crate) query: Query,
    /// When it is interrupted, or not begun any more.
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// Steps of SQLite's machine between two looks at the clock: less than a millisecond.
const STEPS: i32 = 10_000;

/// Runs a query on a snapshot: all of its statements see the same state.
fn on_snapshot(connection: &Connection, query: Query) -> Result<bool, Error> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let _ended_by_drop = Snapshot(connection);
    Ok(query(connection))
}

/// Ends the transaction of a query, also of one that panics.
struct Snapshot<'a>(&'a Connection);

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if self.0.is_autocommit() {
            // A failure has ended it.
            return;
        }
        let end = self.0.prepare_cached("COMMIT");
        if let Err(error) = end.and_then(|mut end| end.execute([])) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot end the snapshot of a query in SQLite, later queries on its connection fail"
            );
        }
    }
}

/// Serves the queue until it is closed and empty.
pub(crate) fn run(mut connection: Connection, queue: &async_channel::Receiver<Request>) {
    while let Ok(request) = queue.recv_blocking() {
        let Request {
            query,
            deadline,
            reply,
        } = request;
        let run = || match deadline {
            Some(deadline) => run_until(deadline, &mut connection, query),
            None => on_snapshot(&connection, query).map(drop),
        };
        if let Ok(outcome) = catch_unwind(AssertUnwindSafe(run)) {
            // The caller may have dropped its future.
            drop(reply.send(outcome));
        } else {
            // The sender is dropped, which is the caller's error; the thread continues.
            tracing::error!("a query in SQLite panicked, its caller gets an error");
        }
    }
    drop(connection);
}

/// Runs a query that is interrupted at its deadline, and not begun after it.
fn run_until(deadline: Instant, connection: &mut Connection, query: Query) -> Result<(), Error> {
    if Instant::now() >= deadline {
        return Err(Error::TooSlow);
    }
    let is_late = Arc::new(AtomicBool::new(false));
    let interrupt = {
        let is_late = Arc::clone(&is_late);
        move || {
            let late = Instant::now() >= deadline;
            is_late.fetch_or(late, Ordering::Relaxed);
            late
        }
    };
    connection.progress_handler(STEPS, Some(interrupt))?;
    let succeeded = on_snapshot(connection, query);
    // After a panic the handler stays, until the next query sets its own.
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match succeeded {
        Ok(true) => Ok(()),
        _ if is_late.load(Ordering::Relaxed) => Err(Error::TooSlow),
        failed => failed.map(drop),
    }
}
