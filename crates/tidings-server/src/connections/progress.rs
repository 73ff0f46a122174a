//! What has been read from a connection, and whether a write waits for its client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What has been read from a connection, and whether a write waits for its client.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often bytes have come in.
    received: u64,
    /// Since when the socket has taken no byte, if a write waits for it.
    blocked_since: Option<Instant>,
}

impl Progress {
    /// Waits until the client has not read for as long as `limit` while a write waits for it.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let end = self.state().blocked_since.unwrap_or(now) + limit;
            if end <= now {
                return;
            }
            sleep_until(end).await;
        }
    }

    /// How often bytes have come in.
    pub(super) fn received(&self) -> u64 {
        self.state().received
    }

    /// Bytes have come in.
    pub(super) fn receive(&self) {
        self.state().received += 1;
    }

    /// A write to the socket took some bytes, or has to wait.
    pub(super) fn wrote(&self, is_blocked: bool) {
        let blocked_since = &mut self.state().blocked_since;
        if is_blocked {
            blocked_since.get_or_insert_with(Instant::now);
        } else {
            *blocked_since = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
