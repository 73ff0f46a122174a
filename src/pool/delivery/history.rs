//! What is kept of the attempts of a delivery that waits for the next one: six bytes of each.

mod entry;

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Attempt, DeliveryErrorCause};
use entry::{Content, Entry, Summary};

/// How many attempts are kept: as many as are followed by a wait in the schedule that Standard
/// Webhooks gives as its example.
const KEPT: usize = 9;

/// The attempts after which a delivery had to wait, in short.
///
/// Of more than [`KEPT`] only the first and the last ones are kept, and those in between are
/// counted.
#[derive(Debug, Default)]
pub(super) struct History(Box<[Entry]>);

impl History {
    /// How many attempts there were.
    pub(super) fn len(&self) -> u32 {
        let attempts = self.0.iter().map(|entry| match entry.unpack() {
            Content::Attempt(_) => 1,
            Content::Omitted(attempts) => attempts,
        });
        attempts.fold(0, u32::saturating_add)
    }

    /// Adds an attempt that began so long after the acceptance. `keeps_all` lets it keep more than
    /// [`KEPT`].
    pub(super) fn push(&mut self, attempt: &Attempt, began_after: Duration, keeps_all: bool) {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        if entries.len() == KEPT && !keeps_all {
            let omitted = match entries[1].unpack() {
                Content::Attempt(_) => 1,
                Content::Omitted(attempts) => attempts,
            };
            entries[1] = Entry::pack(Content::Omitted(omitted.saturating_add(1)));
            entries.remove(2);
        }
        entries.reserve_exact(1);
        entries.push(Entry::pack(Content::Attempt(Summary::of(
            attempt,
            began_after,
        ))));
        self.0 = entries.into_boxed_slice();
    }

    /// Why the last attempt failed, as the cause of the end of its delivery.
    pub(super) fn last_failure(&self) -> Option<DeliveryErrorCause> {
        match self.0.last()?.unpack() {
            Content::Attempt(last) => Some(last.cause()),
            Content::Omitted(_) => None,
        }
    }

    /// The attempts that are kept, without their phases, their bodies and the sources of their
    /// errors.
    pub(super) fn attempts(&self, first: NonZeroU32, accepted_at: Timestamp) -> Vec<Attempt> {
        let mut number = first.get();
        let mut attempts = Vec::with_capacity(self.0.len() + 1);
        for entry in &self.0 {
            let followed_by = match entry.unpack() {
                Content::Attempt(summary) => {
                    attempts.push(summary.attempt(number, accepted_at));
                    1
                }
                Content::Omitted(attempts) => attempts,
            };
            number = number.saturating_add(followed_by);
        }
        attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttemptError, ErrorKind, Phases, Verdict};

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(kind: ErrorKind) -> Attempt {
        Attempt {
            number: 1,
            started_at: Timestamp::UNIX_EPOCH,
            elapsed: SECOND,
            phases: Phases::default(),
            verdict: Verdict::Retryable,
            result: Err(AttemptError::new(kind, kind)),
        }
    }

    /// So many attempts, one a minute.
    fn history(attempts: u32, keeps_all: bool) -> History {
        let mut history = History::default();
        for minute in 0..attempts {
            let is_last = minute + 1 == attempts;
            let kind = if is_last {
                ErrorKind::Tls
            } else {
                ErrorKind::Dns
            };
            history.push(&attempt(kind), 60 * minute * SECOND, keeps_all);
        }
        history
    }

    fn numbers(attempts: u32, keeps_all: bool) -> Vec<u32> {
        let (first, accepted_at) = (NonZeroU32::new(3).unwrap(), Timestamp::UNIX_EPOCH);
        let history = history(attempts, keeps_all);
        assert_eq!(history.len(), attempts);
        let attempts = history.attempts(first, accepted_at);
        for attempt in &attempts {
            let exact = i64::from(attempt.number - 3) * 60_000;
            let rounded = attempt.started_at.as_millisecond();
            assert!((exact - 1000..=exact).contains(&rounded), "{attempt:?}");
        }
        attempts.iter().map(|attempt| attempt.number).collect()
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_kept_and_the_others_counted() {
        assert!(numbers(0, false).is_empty());
        assert_eq!(numbers(9, false), [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(numbers(10, false), [3, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(
            numbers(1000, false),
            [3, 996, 997, 998, 999, 1000, 1001, 1002]
        );
        assert!(numbers(1000, true).into_iter().eq(3..1003));
    }

    #[test]
    fn the_last_failure_is_that_of_the_last_attempt() {
        assert!(History::default().last_failure().is_none());
        for attempts in [1, 9, 10, 11] {
            let failure = history(attempts, false).last_failure().unwrap();
            let DeliveryErrorCause::Transport(error) = failure else {
                panic!("{failure:?}");
            };
            assert_eq!(error.kind(), ErrorKind::Tls);
        }
    }
}
