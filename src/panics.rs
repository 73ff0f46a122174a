//! Code of the caller that panics: callbacks, policies, resolvers, signers, tracing layers,
//! recorders of metrics. A panic in it costs at most the attempt in which it happens.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Calls a function; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Waits for a future; `None` if it panicked.
pub(crate) async fn catch_async<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Some(poll) => poll.map(Some),
        None => Poll::Ready(None),
    })
    .await
}

/// Logs that a piece of the caller's code panicked.
pub(crate) fn log(what: &'static str) {
    // The tracing layer may be what panics.
    catch(|| tracing::error!("{what} panicked"));
}
