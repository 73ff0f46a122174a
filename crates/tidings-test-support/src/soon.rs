//! Waiting for what must happen.

use std::time::Duration;

/// Past this a test has failed: nothing that tests wait for takes a tenth of it, also on a machine that is busy or
/// stands still for a while.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen, for [`PATIENCE`].
///
/// # Panics
///
/// When it does not happen, with the name of what was waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
