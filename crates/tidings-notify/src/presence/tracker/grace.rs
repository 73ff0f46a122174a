//! Reporting as offline only who stays offline.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::UserId;

/// Most users who may be about to be reported as offline.
const MAX_LEAVING: usize = 65_536;

/// Users who went offline within the grace time.
#[derive(Debug)]
pub(super) struct Grace {
    time: Duration,
    /// The number under which each of them stands in the queue.
    leaving: HashMap<UserId, u64>,
    /// All have the same time to wait, so the first to go is the first to be due. Some have come back.
    queue: VecDeque<Due>,
    next: u64,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    user: UserId,
    number: u64,
}

/// There is no room for another user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Grace {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            leaving: HashMap::new(),
            queue: VecDeque::new(),
            next: 0,
        }
    }

    /// A user came online. Returns whether that is news.
    pub(super) fn came(&mut self, user: &UserId) -> bool {
        self.leaving.remove(user).is_none()
    }

    /// Whether a user went offline, and is to be reported.
    pub(super) fn is_leaving(&self, user: &UserId) -> bool {
        self.leaving.contains_key(user)
    }

    /// A user went offline, and is reported later.
    pub(super) fn left(&mut self, user: UserId, now: Instant) -> Result<(), Full> {
        if self.queue.len() >= MAX_LEAVING {
            return Err(Full);
        }
        self.next += 1;
        self.leaving.insert(user.clone(), self.next);
        self.queue.push_back(Due {
            at: now + self.time,
            user,
            number: self.next,
        });
        Ok(())
    }

    /// The next user who has stayed offline for long enough.
    pub(super) fn due(&mut self, now: Instant) -> Option<UserId> {
        while self.queue.front().is_some_and(|due| due.at <= now)
            && let Some(due) = self.queue.pop_front()
        {
            if self.leaving.get(&due.user) == Some(&due.number) {
                self.leaving.remove(&due.user);
                return Some(due.user);
            }
        }
        None
    }

    /// Forgets everyone.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::tracker::TrackerOptions;
    use crate::presence::tracker::options::YEAR;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn only_who_stays_away_is_reported() {
        let mut grace = Grace::new(Duration::from_secs(10));
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(grace.came(&user("ann")));
        grace.left(user("ann"), at(0)).unwrap();
        grace.left(user("bob"), at(1)).unwrap();
        assert_eq!(grace.due(at(9)), None);
        // Back within the time, and away again: the time begins anew.
        assert!(!grace.came(&user("ann")));
        grace.left(user("ann"), at(9)).unwrap();
        assert_eq!(grace.due(at(11)), Some(user("bob")));
        assert_eq!(grace.due(at(18)), None);
        assert_eq!(grace.due(at(19)), Some(user("ann")));
        assert_eq!(grace.due(at(99)), None);
        assert!(grace.came(&user("ann")));
    }

    #[test]
    fn any_grace_that_a_tracker_is_given_can_be_waited_for() {
        let options = TrackerOptions::default().with_grace(YEAR);
        options.check().unwrap();
        let mut grace = Grace::new(options.grace);
        let now = Instant::now();
        grace.left(user("ann"), now).unwrap();
        assert_eq!(grace.due(now + Duration::from_secs(3600)), None);
    }

    #[test]
    fn the_number_of_those_who_leave_is_bounded() {
        let mut grace = Grace::new(Duration::from_secs(10));
        let now = Instant::now();
        for _ in 0..MAX_LEAVING {
            grace.left(user("ann"), now).unwrap();
        }
        assert_eq!(grace.left(user("bob"), now), Err(Full));
        grace.clear();
        assert_eq!(grace.left(user("bob"), now), Ok(()));
    }
}
