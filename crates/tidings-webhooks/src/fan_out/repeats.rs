//! A store that fails is asked again for the same step, so that what was accepted later does not get ahead.

use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::FanOut;
use crate::StoreError;

/// The pause after the first failure, which doubles with each further one, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often in a row a store may refuse a step although it can be reached. Such a step may be refused for ever,
/// and others must not wait for it.
const REFUSALS: u32 = 6;

impl FanOut {
    /// Has the store do a step: again and again, with pauses, until it is done. A step that was done although its
    /// call failed is done twice.
    ///
    /// Returns an error when the store is closed, has refused the step too often, or when `closing` is cancelled
    /// in a pause.
    pub(super) async fn until_done<T, F>(
        &self,
        what: &'static str,
        closing: &CancellationToken,
        mut step: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut next_pause = FIRST_PAUSE;
        let mut refusals = 0;
        loop {
            let error = match step().await {
                Ok(done) => {
                    if next_pause > FIRST_PAUSE {
                        self.lanes.store_worked();
                    }
                    return Ok(done);
                }
                Err(error @ StoreError::Closed) => return Err(error),
                Err(error) => error,
            };
            self.lanes.store_failed(&error, what);
            refusals = match error {
                StoreError::Backend(_) => refusals + 1,
                _ => 0,
            };
            let pause = next_pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            if refusals >= REFUSALS || closing.run_until_cancelled(sleep(pause)).await.is_none() {
                return Err(error);
            }
            next_pause = (next_pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for one call of the store, no longer than messages are claimed: a store that does not reply fails as
    /// well.
    pub(super) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.claims(), call)
            .await
            .unwrap_or_else(|_elapsed| {
                let late = io::Error::new(io::ErrorKind::TimedOut, "no reply in time");
                Err(StoreError::OutcomeUnknown(late.into()))
            })
    }
}
