//! Streams that are opened, a few at a time.
//!
//! After a break of the network, or a restart, thousands of clients connect in the same moment. If all of them were
//! served at once, everything else would wait until the last of them has had its turn.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// A stream that has waited for so long is opened without a turn: those that have one may wait for a database that does not
/// reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of streams that are opened.
#[derive(Debug)]
pub(crate) struct Openings(Semaphore);

/// A turn, until it is dropped. It must not be kept while a client is waited for.
#[derive(Debug)]
#[must_use = "a turn that is dropped is over"]
pub(crate) struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

impl Openings {
    /// So many streams are opened at the same time: as many reads as the storage serves at once.
    /// With four times as many, ten thousand that reconnect are not sooner done, and others wait twice as long.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Semaphore::new(at_once))
    }

    /// Waits for a turn, in the order of the calls, for a while.
    ///
    /// Cancel safe: a dropped call takes no turn.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let permit = timeout(PATIENCE, self.0.acquire()).await;
        Turn {
            // The semaphore is never closed.
            _permit: permit.ok().and_then(Result::ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const AT_ONCE: usize = 4;

    #[tokio::test(start_paused = true)]
    async fn streams_are_opened_a_few_at_a_time_in_the_order_in_which_they_came() {
        let openings = Openings::new(AT_ONCE);
        let mut turns: Vec<_> = (0..AT_ONCE)
            .map(|_| openings.turn().now_or_never().unwrap())
            .collect();
        let (mut first, mut second) = (Box::pin(openings.turn()), Box::pin(openings.turn()));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        turns.pop();
        assert!((&mut second).now_or_never().is_none());
        let of_first = (&mut first).now_or_never().unwrap();
        drop(of_first);
        assert!((&mut second).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_not_waited_for() {
        let openings = Openings::new(AT_ONCE);
        let turns: Vec<_> = (0..AT_ONCE)
            .map(|_| openings.turn().now_or_never().unwrap())
            .collect();
        let started = Instant::now();
        drop(openings.turn().await);
        assert_eq!(started.elapsed(), PATIENCE);
        drop(turns);
        assert!(openings.turn().now_or_never().is_some());
    }
}
