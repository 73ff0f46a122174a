//! Code of the program that is called from the tasks of a broker, and may panic: recorders of metrics,
//! tracing layers, wakers. A panic in it ends no task, for then subscriptions would fall silent for ever.
//!
//! Such code is called through [`catch`]. What is called out of sight, by other libraries that log, is
//! the business of the loop of each task, which treats a panic as a failure of the server.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls a function; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
