//! Code of the embedding program that is called from the tasks of the server, and may panic: recorders of metrics and
//! tracing layers. A panic in it ends no task that all callers depend on.
//!
//! What such a task calls itself is called through [`catch`]. What is called out of sight, by other libraries that
//! log, is the business of [`attempt`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

/// Time until work that panicked is begun again.
const PAUSE: Duration = Duration::from_secs(1);

/// Calls a function; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Waits for the work of a task. `None` if it panicked, after a pause: the task begins it again.
pub(crate) async fn attempt<F: Future>(what: &'static str, work: F) -> Option<F::Output> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    if done.is_err() {
        catch(|| tracing::error!("{what} panicked, and begins again"));
        sleep(PAUSE).await;
    }
    done.ok()
}
