//! The threads that read, each with a connection of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tokio::time::Instant;

use crate::Error;

/// Work for a reader; it sends its result to the caller itself.
pub(crate) type Query = Box<dyn FnOnce(&mut Connection) + Send>;

/// Steps of SQLite's machine between two looks at the clock: less than a millisecond.
const STEPS: i32 = 10_000;

/// Runs a query on a snapshot: all of its statements see the same state.
pub(crate) fn on_snapshot<T, E: From<Error>>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let begin = connection.prepare_cached("BEGIN");
    begin
        .and_then(|mut begin| begin.execute([]))
        .map_err(Error::from)?;
    let _ended_by_drop = Snapshot(connection);
    query(connection)
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
pub(crate) fn run(mut connection: Connection, queue: &async_channel::Receiver<Query>) {
    while let Ok(query) = queue.recv_blocking() {
        // A panic drops the sender of the result, which is the caller's error; the thread continues.
        if catch_unwind(AssertUnwindSafe(|| query(&mut connection))).is_err() {
            tracing::error!("a query in SQLite panicked, its caller gets an error");
        }
    }
    drop(connection);
}

/// Runs a query that is interrupted at its deadline, and not begun after it.
pub(crate) fn run_until<T, E: From<Error>>(
    deadline: Instant,
    connection: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    if Instant::now() >= deadline {
        return Err(Error::TooSlow.into());
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
    connection
        .progress_handler(STEPS, Some(interrupt))
        .map_err(Error::from)?;
    let result = on_snapshot(connection, query);
    // After a panic the handler stays, until the next query sets its own.
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .map_err(Error::from)?;
    match result {
        Err(_) if is_late.load(Ordering::Relaxed) => Err(Error::TooSlow.into()),
        result => result,
    }
}
