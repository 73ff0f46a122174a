//! The threads that read, each with a connection of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

/// Work for a reader; it sends its result to the caller itself.
pub(crate) type Query = Box<dyn FnOnce(&Connection) + Send>;

/// Serves the queue until it is closed and empty.
pub(crate) fn run(connection: Connection, queue: &async_channel::Receiver<Query>) {
    while let Ok(query) = queue.recv_blocking() {
        // A panic drops the sender of the result, which is the caller's error; the thread goes on.
        if catch_unwind(AssertUnwindSafe(|| query(&connection))).is_err() {
            tracing::error!("a database query panicked");
        }
    }
    drop(connection);
}
