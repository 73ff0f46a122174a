//! The pace at which streams are asked to reconnect when the server stops, so that the other instances, or
//! the next run, do not get all of them at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Streams leave in so many groups.
const GROUPS: u32 = 64;

/// Streams that are asked to reconnect in a second: each costs the server that it goes to a read or two of
/// the database.
const PACE: f64 = 1000.0;

/// The groups of the streams. The token of a group is cancelled when it is time to leave.
#[derive(Debug)]
pub(crate) struct Farewell {
    groups: [CancellationToken; GROUPS as usize],
    /// Changes when a group is to leave.
    said: watch::Sender<()>,
}

impl Farewell {
    /// When connections are cut off, it is time for all groups.
    pub(crate) fn new(cutting_off: &CancellationToken) -> Self {
        Self {
            groups: std::array::from_fn(|_| cutting_off.child_token()),
            said: watch::Sender::new(()),
        }
    }

    /// Changes when it is time to leave for another group.
    pub(crate) fn said(&self) -> watch::Receiver<()> {
        self.said.subscribe()
    }

    /// A group for another stream.
    pub(crate) fn group(&self) -> CancellationToken {
        self.groups[fastrand::usize(..self.groups.len())].clone()
    }

    /// Cancels one group after another, for so many streams in all, within the time limit.
    pub(crate) async fn say(&self, streams: usize, limit: Duration) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are less than 2^52 streams"
        )]
        let seconds = streams as f64 / PACE;
        let pause = Duration::from_secs_f64(seconds).min(limit) / GROUPS;
        for group in &self.groups {
            group.cancel();
            self.said.send_replace(());
            // A timer is never shorter than a millisecond.
            if pause >= Duration::from_millis(1) {
                sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How many of a hundred streams have been asked to leave after this time.
    async fn asked(streams: usize, limit: Duration, after: Duration) -> usize {
        let farewell = Farewell::new(&CancellationToken::new());
        let groups: Vec<_> = (0..6400)
            .map(|n| farewell.groups[n % farewell.groups.len()].clone())
            .collect();
        let _out_of_time = tokio::time::timeout(after, farewell.say(streams, limit)).await;
        groups.iter().filter(|group| group.is_cancelled()).count() / 64
    }

    #[tokio::test(start_paused = true)]
    async fn many_streams_end_one_thousand_a_second() {
        let long = Duration::from_secs(60);
        assert_eq!(asked(10_000, long, Duration::from_millis(4999)).await, 50);
        assert_eq!(asked(10_000, long, Duration::from_millis(9999)).await, 100);
    }

    #[test]
    fn all_leave_when_connections_are_cut_off() {
        let cutting_off = CancellationToken::new();
        let farewell = Farewell::new(&cutting_off);
        assert!(!farewell.group().is_cancelled());
        cutting_off.cancel();
        assert!(farewell.groups.iter().all(CancellationToken::is_cancelled));
    }

    #[tokio::test(start_paused = true)]
    async fn all_end_within_the_limit_and_few_at_once() {
        let started = Instant::now();
        let limit = Duration::from_secs(3);
        assert_eq!(asked(1_000_000, limit, Duration::from_secs(4)).await, 100);
        assert!(started.elapsed() <= limit + Duration::from_millis(64));
        let started = Instant::now();
        assert_eq!(asked(50, limit, limit).await, 100);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
