//! What has been read from a connection, and how far what was sent has been written.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How far the bytes for a connection have been written to its socket.
///
/// A response body hands its chunks to the HTTP library, which buffers them. When the library
/// flushes the socket, its buffer is empty, so every chunk that was handed over before is written.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    handed_over: u64,
    written: u64,
    /// How often bytes have come in.
    received: u64,
    /// Since when the socket has taken no byte, if a write waits for it.
    blocked_since: Option<Instant>,
}

impl Progress {
    /// Counts a chunk that is handed over, and returns its number.
    pub(crate) fn hand_over(&self) -> u64 {
        let mut state = self.state();
        state.handed_over += 1;
        state.handed_over
    }

    /// Whether the chunk of this number is written.
    pub(crate) fn is_written(&self, chunk: u64) -> bool {
        self.state().written >= chunk
    }

    /// Waits until the chunk of this number is written.
    pub(crate) async fn written(&self, chunk: u64) {
        while !self.is_written(chunk) {
            // A single reader waits, and a notice that comes before it waits is kept for it.
            self.changed.notified().await;
        }
    }

    /// Waits until the client has not read for as long as `limit` while a write waits for it.
    pub(crate) async fn stalled(&self, limit: Duration) {
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

    /// The socket has taken all bytes that were buffered.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.blocked_since = None;
        let moved = state.written != state.handed_over;
        state.written = state.handed_over;
        drop(state);
        if moved {
            self.changed.notify_one();
        }
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
