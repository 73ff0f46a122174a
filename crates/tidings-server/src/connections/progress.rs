//! What has been read from a connection, whether a write waits for its client, and how fast the client reads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Bytes of a response that its client must read in each period, until there are fewer. So a client with 70 kbit/s can read
/// responses of any size, and a large one is not in memory for as long as its client likes.
const READ_BYTES: usize = 512 << 10;

/// How long a client may block a write while the server stops.
const STALLED_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What has been read from a connection, whether a write waits for its client, and how fast the client reads.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often bytes have come in.
    received: u64,
    /// Since when the socket has taken no byte, if a write waits for it.
    blocked_since: Option<Instant>,
    /// Of what is not written yet to its end.
    unfinished: Option<Unfinished>,
}

/// What the client has taken of the bytes that it must read in a period.
#[derive(Debug)]
struct Unfinished {
    since: Instant,
    taken: usize,
}

impl Progress {
    /// Waits until the server stops and the client has blocked a write for a moment. Such a connection is not worth
    /// waiting for.
    pub(crate) async fn stalls_the_stop(&self, stopping: &CancellationToken) {
        stopping.cancelled().await;
        self.lasts(STALLED_STOP_TIMEOUT, |state| state.blocked_since)
            .await;
    }

    /// Waits until the client has read less than it must in a period.
    pub(super) async fn fell_behind(&self, period: Duration) {
        let since = |state: &State| state.unfinished.as_ref().map(|of| of.since);
        self.lasts(period, since).await;
    }

    /// Waits until there is a start that is as long ago as `limit`.
    async fn lasts(&self, limit: Duration, since: impl Fn(&State) -> Option<Instant>) {
        loop {
            let now = Instant::now();
            let end = since(&self.state()).unwrap_or(now) + limit;
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

    /// A write to the socket took so many bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        state.blocked_since = None;
        let unfinished = state.unfinished.get_or_insert_with(Unfinished::begin);
        unfinished.taken += bytes;
        if unfinished.taken >= READ_BYTES {
            *unfinished = Unfinished::begin();
        }
    }

    /// A write to the socket has to wait.
    pub(super) fn waits(&self) {
        let mut state = self.state();
        state.blocked_since.get_or_insert_with(Instant::now);
        state.unfinished.get_or_insert_with(Unfinished::begin);
    }

    /// All bytes that there were have been written.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.blocked_since = None;
        state.unfinished = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unfinished {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            taken: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    async fn advance(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    async fn is_behind(progress: &Progress) -> bool {
        let fell_behind = progress.fell_behind(PERIOD);
        tokio::time::timeout(Duration::ZERO, fell_behind)
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_must_read_so_many_bytes_in_each_period_and_the_rest_in_the_last() {
        let progress = Progress::default();
        for _ in 0..3 {
            progress.wrote(READ_BYTES / 2);
            progress.waits();
            advance(59).await;
            assert!(!is_behind(&progress).await);
            progress.wrote(READ_BYTES / 2);
        }
        advance(59).await;
        progress.wrote(READ_BYTES - 1);
        assert!(!is_behind(&progress).await);
        progress.flushed();
        advance(120).await;
        assert!(!is_behind(&progress).await, "nothing is left to read");

        progress.waits();
        advance(59).await;
        progress.wrote(READ_BYTES - 1);
        progress.waits();
        assert!(!is_behind(&progress).await);
        advance(1).await;
        assert!(is_behind(&progress).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_begins_while_it_is_watched_has_a_whole_period() {
        let progress = Progress::default();
        let started = Instant::now();
        let writing = async {
            tokio::time::sleep(PERIOD / 2).await;
            progress.waits();
        };
        tokio::join!(progress.fell_behind(PERIOD), writing);
        assert_eq!(started.elapsed(), PERIOD / 2 + PERIOD);
    }
}
