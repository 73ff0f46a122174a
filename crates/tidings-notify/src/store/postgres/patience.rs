//! Waiting for a log that another transaction holds, without a connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::StoreError;

/// Time until the next attempt: at first, and at most.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// How long one call waits.
#[derive(Debug)]
pub(super) struct Patience {
    give_up_at: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            give_up_at: Instant::now() + limit,
            pause: PAUSES[0],
        }
    }

    /// When the call is to be tried again, unless it has waited too long.
    pub(super) fn again_at(&mut self) -> Result<Instant, StoreError> {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES[1]);
        if self.is_over() {
            return Err(StoreError::Locked);
        }
        Ok(Instant::now() + pause)
    }

    /// Whether the call has waited too long.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.give_up_at
    }
}
