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

/// Serves the queue until it is closed and empty.
pub(crate) fn run(mut connection: Connection, queue: &async_channel::Receiver<Query>) {
    while let Ok(query) = queue.recv_blocking() {
        // A panic drops the sender of the result, which is the caller's error; the thread goes on.
        if catch_unwind(AssertUnwindSafe(|| query(&mut connection))).is_err() {
            tracing::error!("a database query panicked");
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
    let result = query(connection);
    // After a panic the handler stays, until the next query sets its own.
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .map_err(Error::from)?;
    match result {
        Err(_) if is_late.load(Ordering::Relaxed) => Err(Error::TooSlow.into()),
        result => result,
    }
}
