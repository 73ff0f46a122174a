//! What waits for one endpoint, and in which order it goes.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use tokio::time::Instant;

use crate::pool::delivery::Delivery;
use crate::pool::moment::Moment;
use crate::retry::Budget;

/// The deliveries of one endpoint that no worker holds.
#[derive(Debug)]
pub(super) struct Queue {
    /// Deliveries without an attempt, the oldest in front.
    fresh: VecDeque<Box<Delivery>>,
    /// Deliveries whose next attempt is due, by the age of the message.
    due: BinaryHeap<Reverse<Retry<true>>>,
    /// Since when there has always been a retry that is due, if there is one.
    due_since: Option<Moment>,
    /// Deliveries whose next attempt is not due yet, by when it is.
    waiting: BinaryHeap<Reverse<Retry<false>>>,
    /// The same, for those that wait because the endpoint asked for it.
    put_off: BinaryHeap<Reverse<Retry<false>>>,
}

/// How many places a part of the queue keeps that has become empty. It gives the others back: lanes
/// are many, and each may have been full once.
const KEPT_PLACES: usize = 32;

/// Where the next delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Fresh,
    Retries,
}

impl Source {
    /// Where a delivery came from whose attempt is over.
    pub(super) fn of(delivery: &Delivery) -> Self {
        if delivery.has_waited() {
            Self::Retries
        } else {
            Self::Fresh
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Fresh => Self::Retries,
            Self::Retries => Self::Fresh,
        }
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            fresh: VecDeque::new(),
            due: BinaryHeap::new(),
            due_since: None,
            waiting: BinaryHeap::new(),
            put_off: BinaryHeap::new(),
        }
    }

    pub(super) fn push(&mut self, delivery: Box<Delivery>) {
        self.fresh.push_back(delivery);
    }

    /// Keeps a delivery until its next attempt is due.
    pub(super) fn push_retry(&mut self, mut delivery: Box<Delivery>, due: Instant) {
        delivery.due = due.into();
        self.waiting.push(Reverse(Retry(delivery)));
    }

    /// Keeps a delivery until the time that the endpoint asked for.
    pub(super) fn put_off(&mut self, mut delivery: Box<Delivery>, until: Instant) {
        delivery.due = until.into();
        self.put_off.push(Reverse(Retry(delivery)));
    }

    /// Makes due what the endpoint has put off.
    pub(super) fn release_put_off(&mut self) {
        let now = Moment::now();
        for Reverse(Retry(mut delivery)) in std::mem::take(&mut self.put_off) {
            delivery.due = now;
            self.waiting.push(Reverse(Retry(delivery)));
        }
    }

    /// Takes what the endpoint has put off for the least time, if that is beyond a time.
    pub(super) fn take_put_off_beyond(&mut self, limit: Instant) -> Option<Box<Delivery>> {
        let Reverse(next) = self.put_off.peek()?;
        if next.0.due <= limit.into() {
            return None;
        }
        self.put_off.pop().map(|Reverse(retry)| retry.0)
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.due.len() + self.waiting.len() + self.put_off.len()
    }

    /// Moves the retries that have become due to those that are.
    pub(super) fn advance(&mut self, now: Instant) {
        let now = Moment::from(now);
        for waiting in [&mut self.waiting, &mut self.put_off] {
            while let Some(Reverse(next)) = waiting.peek()
                && next.0.due <= now
                && let Some(Reverse(Retry(delivery))) = waiting.pop()
            {
                let since = self.due_since.unwrap_or(delivery.due);
                self.due_since = Some(since.min(delivery.due));
                self.due.push(Reverse(Retry(delivery)));
            }
            if waiting.is_empty() {
                waiting.shrink_to(KEPT_PLACES);
            }
        }
    }

    /// Whether an attempt is due.
    pub(super) fn has_due(&self) -> bool {
        !self.fresh.is_empty() || !self.due.is_empty()
    }

    /// When the next retry is due that is not due yet.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let next = [self.waiting.peek(), self.put_off.peek()];
        let next = next.into_iter().flatten();
        let due = next.map(|Reverse(retry)| retry.0.due);
        due.min().map(Instant::from)
    }

    /// Since when there has always been a retry that is due.
    pub(super) fn retries_due_since(&self) -> Option<Instant> {
        self.due_since.map(Instant::from)
    }

    /// Chooses what goes next of what is due. `None` if nothing is, or only retries for which the
    /// budget has no credit.
    ///
    /// Without a budget, what has been due for longest goes first. With one, the older message
    /// goes first as long as there is credit for a retry; without credit new messages go first, but
    /// for one retry at a time that has waited for the budget's trickle.
    pub(super) fn choose(&self, budget: Option<&Budget>, now: Instant) -> Option<Source> {
        let (Some(Reverse(Retry(retry))), Some(due_since)) = (self.due.peek(), self.due_since)
        else {
            // Most of the time, and without a look at a message that has left the processor's cache.
            return (!self.fresh.is_empty()).then_some(Source::Fresh);
        };
        let fresh = self.oldest_fresh();
        let goes = match budget {
            None => fresh.is_none_or(|fresh| retry.due <= fresh),
            Some(budget) => {
                let is_older = fresh.is_none_or(|fresh| retry.accepted_at <= fresh);
                let trickle_at = budget.trickle_at(due_since.into());
                (budget.has_credit() && is_older) || trickle_at.is_some_and(|at| at <= now)
            }
        };
        if goes {
            Some(Source::Retries)
        } else {
            fresh.map(|_| Source::Fresh)
        }
    }

    /// Chooses what goes next of what is due: from one source as long as something is due there.
    pub(super) fn choose_first(&self, source: Source) -> Option<Source> {
        let is_due = |source| match source {
            Source::Fresh => !self.fresh.is_empty(),
            Source::Retries => !self.due.is_empty(),
        };
        [source, source.other()]
            .into_iter()
            .find(|source| is_due(*source))
    }

    pub(super) fn take(&mut self, source: Source) -> Option<Box<Delivery>> {
        match source {
            Source::Fresh => {
                let fresh = self.fresh.pop_front();
                if self.fresh.is_empty() {
                    self.fresh.shrink_to(KEPT_PLACES);
                }
                fresh
            }
            Source::Retries => {
                let retry = self.due.pop().map(|Reverse(retry)| retry.0);
                if self.due.is_empty() {
                    self.due_since = None;
                    self.due.shrink_to(KEPT_PLACES);
                }
                retry
            }
        }
    }

    /// When the oldest message of which an attempt is due was accepted.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let oldest = [self.oldest_fresh(), self.oldest_retry()];
        oldest.into_iter().flatten().min().map(Instant::from)
    }

    /// Takes the oldest message of which an attempt is due.
    pub(super) fn take_oldest(&mut self) -> Option<Box<Delivery>> {
        let is_retry = match (self.oldest_retry(), self.oldest_fresh()) {
            (Some(retry), Some(fresh)) => retry <= fresh,
            (retry, _) => retry.is_some(),
        };
        self.take(if is_retry {
            Source::Retries
        } else {
            Source::Fresh
        })
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<Delivery> {
        let Self {
            fresh,
            due,
            waiting,
            put_off,
            ..
        } = std::mem::replace(self, Self::new());
        let due = due.into_iter().map(|Reverse(retry)| *retry.0);
        let waiting = waiting.into_iter().chain(put_off);
        let waiting = waiting.map(|Reverse(retry)| *retry.0);
        let fresh = fresh.into_iter().map(|delivery| *delivery);
        fresh.chain(due).chain(waiting).collect()
    }

    fn oldest_fresh(&self) -> Option<Moment> {
        self.fresh.front().map(|delivery| delivery.accepted_at)
    }

    /// When the oldest message whose retry is due was accepted.
    pub(super) fn oldest_retry(&self) -> Option<Moment> {
        self.due.peek().map(|Reverse(retry)| retry.0.accepted_at)
    }
}

/// A delivery that had an attempt, ordered by the age of its message or by when it is due.
#[derive(Debug)]
struct Retry<const BY_AGE: bool>(Box<Delivery>);

impl<const BY_AGE: bool> Ord for Retry<BY_AGE> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_age = self.0.accepted_at.cmp(&other.0.accepted_at);
        let by_due = self.0.due.cmp(&other.0.due);
        if BY_AGE {
            by_age.then(by_due)
        } else {
            by_due.then(by_age)
        }
    }
}

impl<const BY_AGE: bool> PartialOrd for Retry<BY_AGE> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const BY_AGE: bool> PartialEq for Retry<BY_AGE> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<const BY_AGE: bool> Eq for Retry<BY_AGE> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use crate::pool::permits::Permits;
    use crate::retry::RetryBudget;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// A delivery that was accepted so many seconds after the start.
    fn delivery(start: Instant, seconds: u32) -> Box<Delivery> {
        let permit = Permits::new(1, None).try_acquire().unwrap();
        let mut delivery = Delivery::new("a", Message::from("x"), permit, None);
        delivery.accepted_at = (start + seconds * SECOND).into();
        delivery
    }

    /// When the delivery was accepted that is taken.
    fn taken(queue: &mut Queue, start: Instant, source: Source) -> Option<u64> {
        let delivery = queue.take(source)?;
        Some((Instant::from(delivery.accepted_at) - start).as_secs())
    }

    fn queue() -> (Queue, Instant) {
        (Queue::new(), Instant::now())
    }

    #[test]
    fn retries_wait_until_they_are_due_and_go_by_the_age_of_their_messages() {
        let (mut queue, start) = queue();
        for (accepted, due) in [(3, 10), (1, 12), (2, 11), (0, 20)] {
            queue.push_retry(delivery(start, accepted), start + due * SECOND);
        }
        queue.advance(start + 9 * SECOND);
        assert!(!queue.has_due());
        assert_eq!(queue.next_due(), Some(start + 10 * SECOND));
        queue.advance(start + 12 * SECOND);
        assert!(queue.has_due());
        assert_eq!(queue.next_due(), Some(start + 20 * SECOND));
        assert_eq!(queue.retries_due_since(), Some(start + 10 * SECOND));
        for expected in [Some(1), Some(2), Some(3), None] {
            assert_eq!(taken(&mut queue, start, Source::Retries), expected);
        }
        assert_eq!(queue.retries_due_since(), None);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn the_oldest_is_found_among_new_messages_and_retries() {
        let (mut queue, start) = queue();
        assert_eq!(queue.oldest(), None);
        assert!(queue.take_oldest().is_none());
        for accepted in [2, 4] {
            queue.push(delivery(start, accepted));
        }
        for accepted in [1, 3, 4, 5] {
            queue.push_retry(delivery(start, accepted), start + 6 * SECOND);
        }
        queue.advance(start + 6 * SECOND);
        for expected in [1, 2, 3, 4, 4, 5] {
            let expected = start + expected * SECOND;
            assert_eq!(queue.oldest(), Some(expected));
            assert_eq!(queue.take_oldest().unwrap().accepted_at, expected.into());
        }
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn without_a_budget_what_has_been_due_for_longest_goes_first() {
        let (mut queue, start) = queue();
        assert_eq!(queue.choose(None, start), None);
        queue.push(delivery(start, 5));
        assert_eq!(queue.choose(None, start), Some(Source::Fresh));
        queue.push_retry(delivery(start, 0), start + 6 * SECOND);
        queue.advance(start + 6 * SECOND);
        // Its message is older, but it has been due for less time.
        assert_eq!(queue.choose(None, start), Some(Source::Fresh));
        queue.push_retry(delivery(start, 0), start + 5 * SECOND);
        queue.advance(start + 6 * SECOND);
        assert_eq!(queue.choose(None, start), Some(Source::Retries));
    }

    #[test]
    fn with_credit_the_older_message_goes_first_and_without_it_the_new_one_until_the_trickle() {
        let (mut queue, start) = queue();
        let mut budget = Budget::new(RetryBudget::default());
        queue.push(delivery(start, 2));
        queue.push_retry(delivery(start, 3), start + 4 * SECOND);
        queue.advance(start + 4 * SECOND);
        let mut now = start + 4 * SECOND;
        assert_eq!(queue.choose(Some(&budget), now), Some(Source::Fresh));
        queue.push_retry(delivery(start, 1), start + 4 * SECOND);
        queue.advance(now);
        assert_eq!(queue.choose(Some(&budget), now), Some(Source::Retries));
        while budget.has_credit() {
            budget.sent_retry(now);
        }
        assert_eq!(queue.choose(Some(&budget), now), Some(Source::Fresh));
        now += SECOND;
        assert_eq!(queue.choose(Some(&budget), now), Some(Source::Retries));
        budget.sent_retry(now);
        queue.take(Source::Fresh).unwrap();
        assert_eq!(queue.choose(Some(&budget), now), None);
    }

    #[test]
    fn retries_are_equal_only_if_neither_goes_before_the_other() {
        let start = Instant::now();
        let retry = |accepted, due: u32| {
            let mut delivery = delivery(start, accepted);
            delivery.due = (start + due * SECOND).into();
            Retry::<true>(delivery)
        };
        assert_eq!(retry(1, 2), retry(1, 2));
        assert_ne!(retry(1, 2), retry(1, 3));
        assert_ne!(retry(1, 2), retry(0, 2));
    }

    #[test]
    fn what_the_endpoint_has_put_off_becomes_due_like_a_retry_or_when_it_is_released() {
        let (mut queue, start) = queue();
        for due in [8, 20] {
            queue.put_off(delivery(start, 0), start + due * SECOND);
        }
        queue.push_retry(delivery(start, 1), start + 10 * SECOND);
        assert_eq!(queue.next_due(), Some(start + 8 * SECOND));
        queue.advance(start + 12 * SECOND);
        // Whichever of the two becomes due first.
        assert_eq!(queue.retries_due_since(), Some(start + 8 * SECOND));
        assert_eq!(queue.next_due(), Some(start + 20 * SECOND));
        for expected in [Some(0), Some(1), None] {
            assert_eq!(taken(&mut queue, start, Source::Retries), expected);
        }
        queue.release_put_off();
        queue.advance(Instant::now());
        assert_eq!(taken(&mut queue, start, Source::Retries), Some(0));
    }

    #[test]
    fn what_is_put_off_is_taken_only_if_all_of_it_is_put_off_beyond_the_limit() {
        let (mut queue, start) = queue();
        for due in [20, 10] {
            queue.put_off(delivery(start, due), start + due * SECOND);
        }
        assert!(queue.take_put_off_beyond(start + 10 * SECOND).is_none());
        for expected in [10, 20] {
            let taken = queue.take_put_off_beyond(start + 9 * SECOND).unwrap();
            assert_eq!(taken.due, (start + expected * SECOND).into());
        }
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn draining_takes_everything_whatever_it_waits_for() {
        let (mut queue, start) = queue();
        queue.push(delivery(start, 0));
        queue.push_retry(delivery(start, 0), start + SECOND);
        queue.advance(start + SECOND);
        queue.push_retry(delivery(start, 0), start + 2 * SECOND);
        queue.put_off(delivery(start, 0), start + 2 * SECOND);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.drain().len(), 4);
        assert_eq!((queue.len(), queue.retries_due_since()), (0, None));
    }
}
