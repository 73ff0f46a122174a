//! Trimming streams that are no longer published to.

use std::sync::Weak;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::outage::Outages;
use crate::Error;
use crate::engine::Engine;

/// Trims every stream to its retention at each interval, until closing.
///
/// It does not keep the engine alive: a store whose last handle was dropped can be opened again at
/// once, although an aborted task is dropped only when its runtime comes to it.
pub(crate) async fn run(
    engine: Weak<dyn Engine>,
    interval: Duration,
    outages: Outages,
    closing: CancellationToken,
) {
    let mut trimming = outages.part("trimming");
    // Spread over the interval's second half, so that processes that start together do not trim
    // together.
    let pause = || tokio::time::sleep(interval.mul_f64(0.5 + fastrand::f64() / 2.0));
    while closing.run_until_cancelled(pause()).await.is_some() {
        let Some(engine) = engine.upgrade() else {
            return;
        };
        match engine.trim().await {
            Ok(removed) => {
                trimming.worked();
                if removed > 0 {
                    tracing::debug!(removed, "old messages were trimmed");
                }
            }
            Err(Error::Closed) => return,
            Err(error) => trimming.failed(&error),
        }
    }
}
