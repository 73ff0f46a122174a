//! Which users have connections here, and what the store knows of it.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::UserId;
use crate::presence::{PresenceError, Standing};

/// Gets the outcome of a call to the store.
pub(super) type Waiter = oneshot::Sender<Result<(), PresenceError>>;

/// The connections of an instance, and which users still have to be written to the store.
#[derive(Debug)]
pub(super) struct Roster {
    users: HashMap<UserId, Entry>,
    /// How many of them the store had after the last write that has succeeded.
    stored: usize,
    /// Those who wait for the store to have a user as the user is here.
    waiting: HashMap<UserId, Vec<Waiter>>,
    /// Users of whom the store may know something else, each once, in the order of their changes.
    queue: VecDeque<UserId>,
    replies: Replies,
    farewell: Result<(), PresenceError>,
}

#[derive(Debug)]
struct Entry {
    connections: u32,
    /// Whether the store had the user after the last write that has succeeded.
    was_stored: bool,
    /// A later write may have changed that: its outcome is not known, or not yet.
    is_uncertain: bool,
    is_queued: bool,
}

impl Entry {
    fn is_here(&self) -> bool {
        self.connections > 0
    }

    fn is_stored(&self) -> bool {
        !self.is_uncertain && self.was_stored == self.is_here()
    }
}

/// Users that are written to the store together.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<BatchUser>);

#[derive(Debug)]
struct BatchUser {
    user: UserId,
    is_here: bool,
    waiters: Vec<Waiter>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those who are here, or those who are not.
    pub(super) fn users(&self, is_here: bool) -> Vec<UserId> {
        let chosen = self.0.iter().filter(|user| user.is_here == is_here);
        chosen.map(|user| user.user.clone()).collect()
    }
}

/// The outcomes for those who waited, to be sent once no lock is held.
#[derive(Debug, Default)]
#[must_use = "someone waits for it"]
pub(super) struct Replies(Vec<(Waiter, Result<(), PresenceError>)>);

impl Replies {
    fn add(&mut self, waiters: Vec<Waiter>, outcome: &Result<(), PresenceError>) {
        let replies = waiters.into_iter().map(|waiter| (waiter, outcome.clone()));
        self.0.extend(replies);
    }

    /// Sends them. It does not matter if a waiter has gone.
    pub(super) fn send(self) {
        for (waiter, outcome) in self.0 {
            let _gone = waiter.send(outcome);
        }
    }
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            users: HashMap::new(),
            stored: 0,
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            replies: Replies::default(),
            farewell: Ok(()),
        }
    }
}

impl Roster {
    /// A user has one more connection.
    pub(super) fn connect(&mut self, user: &UserId) {
        let entry = self.users.entry(user.clone()).or_insert(Entry {
            connections: 0,
            was_stored: false,
            is_uncertain: false,
            is_queued: false,
        });
        entry.connections += 1;
        self.enqueue(user);
    }

    /// A user has one connection less.
    pub(super) fn disconnect(&mut self, user: &UserId) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.connections = entry.connections.saturating_sub(1);
            self.enqueue(user);
        }
    }

    /// Replies once the store has this user as it is here.
    pub(super) fn wait(&mut self, user: &UserId, waiter: Waiter) {
        match self.users.get(user) {
            Some(entry) if !entry.is_stored() => {
                self.waiting.entry(user.clone()).or_default().push(waiter);
            }
            _ => self.replies.add(vec![waiter], &Ok(())),
        }
        self.enqueue(user);
    }

    /// Queues a user of whom the store may know something else. One in a batch comes again once its
    /// outcome is known.
    fn enqueue(&mut self, user: &UserId) {
        if let Some(entry) = self.users.get_mut(user)
            && !entry.is_stored()
            && !entry.is_queued
        {
            entry.is_queued = true;
            self.queue.push_back(user.clone());
        }
    }

    /// How many users the store has; `None` if it does not know everything.
    pub(super) fn written(&self) -> Option<usize> {
        self.queue.is_empty().then_some(self.stored)
    }

    /// How many users the store had after the last write that has succeeded.
    pub(super) fn stored(&self) -> usize {
        self.stored
    }

    /// Takes the outcomes for those who waited.
    pub(super) fn take_replies(&mut self) -> Replies {
        std::mem::take(&mut self.replies)
    }

    /// Takes up to `max` users to write to the store. Their outcome must be [recorded](Self::record)
    /// before the next ones are taken.
    pub(super) fn take(&mut self, max: usize) -> Batch {
        let mut batch = Batch::default();
        while batch.0.len() < max
            && let Some(user) = self.queue.pop_front()
        {
            let Some(entry) = self.users.get_mut(&user) else {
                continue;
            };
            entry.is_queued = false;
            if entry.is_stored() {
                self.settle(&user);
            } else {
                // Until the store has replied, it is not known what it has.
                entry.is_uncertain = true;
                let waiters = self.waiting.remove(&user).unwrap_or_default();
                let is_here = entry.is_here();
                batch.0.push(BatchUser {
                    user,
                    is_here,
                    waiters,
                });
            }
        }
        batch
    }

    /// Records what became of a batch.
    pub(super) fn record(&mut self, batch: Batch, standing: &Result<Standing, PresenceError>) {
        for BatchUser {
            user,
            is_here,
            waiters,
        } in batch.0
        {
            let Some(entry) = self.users.get_mut(&user) else {
                continue;
            };
            match standing {
                Ok(Standing::Kept) => {
                    self.stored -= usize::from(entry.was_stored);
                    self.stored += usize::from(is_here);
                    entry.was_stored = is_here;
                    entry.is_uncertain = false;
                    self.replies.add(waiters, &Ok(()));
                }
                // It is written again at once.
                Ok(Standing::Lost) if waiters.is_empty() => {}
                Ok(Standing::Lost) => {
                    let waiting = self.waiting.entry(user.clone()).or_default();
                    waiting.extend(waiters);
                }
                Err(error) => self.replies.add(waiters, &Err(error.clone())),
            }
            self.settle(&user);
        }
    }

    /// The store has nothing any more: everything is to be written again.
    pub(super) fn forget(&mut self) {
        self.stored = 0;
        let users: Vec<UserId> = self.users.keys().cloned().collect();
        for user in users {
            if let Some(entry) = self.users.get_mut(&user) {
                entry.was_stored = false;
                entry.is_uncertain = false;
                self.settle(&user);
            }
        }
    }

    /// Queues a user if the store knows something else; otherwise replies to those who wait, and drops the
    /// user if there is no connection.
    fn settle(&mut self, user: &UserId) {
        let Some(entry) = self.users.get_mut(user) else {
            return;
        };
        if !entry.is_stored() {
            return self.enqueue(user);
        }
        let waiters = self.waiting.remove(user).unwrap_or_default();
        self.replies.add(waiters, &Ok(()));
        if !entry.is_here() && !entry.is_queued {
            self.users.remove(user);
        }
    }

    /// Ends all registrations. What the store said to that is the roster's [farewell](Self::farewell).
    pub(super) fn close(&mut self, farewell: Result<(), PresenceError>) {
        self.users.clear();
        self.stored = 0;
        for (_, waiters) in self.waiting.drain() {
            self.replies.add(waiters, &Err(PresenceError::Closed));
        }
        self.queue.clear();
        self.farewell = farewell;
    }

    pub(super) fn farewell(self) -> Result<(), PresenceError> {
        self.farewell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Result<Standing, PresenceError> = Ok(Standing::Kept);
    const UNKNOWN: Result<Standing, PresenceError> = Err(PresenceError::NotFound);

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn written(roster: &mut Roster, outcome: &Result<Standing, PresenceError>) -> [Vec<UserId>; 2] {
        let batch = roster.take(10);
        let users = [batch.users(true), batch.users(false)];
        roster.record(batch, outcome);
        users
    }

    #[test]
    fn the_store_hears_of_the_first_and_of_the_last_connection() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        roster.connect(&ann);
        roster.connect(&ann);
        assert_eq!(written(&mut roster, &KEPT), [vec![ann.clone()], vec![]]);
        roster.disconnect(&ann);
        assert_eq!(roster.written(), Some(1));
        roster.disconnect(&ann);
        assert_eq!(written(&mut roster, &KEPT), [vec![], vec![ann]]);
        assert_eq!(roster.written(), Some(0));
    }

    #[test]
    fn who_has_left_before_the_write_is_not_mentioned() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        roster.connect(&ann);
        roster.disconnect(&ann);
        assert_eq!(written(&mut roster, &KEPT), [vec![], vec![]]);
        assert_eq!(roster.written(), Some(0));
    }

    #[test]
    fn what_may_not_have_been_heard_is_said_again() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        roster.connect(&ann);
        assert_eq!(written(&mut roster, &UNKNOWN), [vec![ann.clone()], vec![]]);
        // The store may have heard of her all the same.
        roster.disconnect(&ann);
        assert_eq!(written(&mut roster, &UNKNOWN), [vec![], vec![ann.clone()]]);
        assert_eq!(written(&mut roster, &KEPT), [vec![], vec![ann]]);
        assert_eq!(roster.written(), Some(0));
    }

    #[test]
    fn who_changes_while_the_store_is_written_comes_again() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        roster.connect(&ann);
        let batch = roster.take(10);
        roster.disconnect(&ann);
        roster.record(batch, &KEPT);
        assert_eq!(written(&mut roster, &KEPT), [vec![], vec![ann]]);
        assert_eq!(roster.written(), Some(0));
    }

    #[test]
    fn who_waits_for_the_opposite_of_what_is_being_written_waits_for_the_next_write() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        let wait = |roster: &mut Roster| {
            let (waiter, waiting) = oneshot::channel();
            roster.wait(&ann, waiter);
            roster.take_replies().send();
            waiting
        };
        roster.connect(&ann);
        let coming = roster.take(10);
        roster.disconnect(&ann);
        let mut left = wait(&mut roster);
        assert!(left.try_recv().is_err());
        roster.record(coming, &KEPT);
        let leaving = roster.take(10);
        roster.connect(&ann);
        let mut came = wait(&mut roster);
        roster.record(leaving, &KEPT);
        roster.take_replies().send();
        assert!(left.try_recv().unwrap().is_ok());
        assert!(came.try_recv().is_err());
        assert_eq!(written(&mut roster, &KEPT), [vec![ann.clone()], vec![]]);
        roster.take_replies().send();
        assert!(came.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_batch_is_bounded_and_keeps_the_order() {
        let mut roster = Roster::default();
        let users = ["cid", "ann", "bob"].map(user);
        for user in &users {
            roster.connect(user);
        }
        let batch = roster.take(2);
        assert_eq!(batch.users(true), users[..2]);
        roster.record(batch, &KEPT);
        assert_eq!(roster.take(2).users(true), users[2..]);
    }

    #[test]
    fn a_store_that_has_lost_everything_is_written_everything() {
        let (mut roster, [ann, bob, cid]) = (Roster::default(), ["ann", "bob", "cid"].map(user));
        for user in [&ann, &bob, &cid] {
            roster.connect(user);
        }
        written(&mut roster, &KEPT);
        roster.disconnect(&bob);
        roster.forget();
        let [mut came, left] = written(&mut roster, &KEPT);
        came.sort();
        assert_eq!([came, left], [vec![ann, cid], vec![]]);
        assert_eq!(roster.written(), Some(2));
    }

    #[test]
    fn those_who_wait_hear_the_outcome_that_concerns_them() {
        let (mut roster, ann) = (Roster::default(), user("ann"));
        let wait = |roster: &mut Roster| {
            let (waiter, waiting) = oneshot::channel();
            roster.wait(&ann, waiter);
            waiting
        };
        roster.connect(&ann);
        let mut early = wait(&mut roster);
        let batch = roster.take(10);
        let mut late = wait(&mut roster);
        roster.record(batch, &UNKNOWN);
        roster.take_replies().send();
        assert!(early.try_recv().unwrap().is_err());
        assert!(late.try_recv().is_err());
        // What is lost is written again, and only that counts.
        written(&mut roster, &Ok(Standing::Lost));
        roster.forget();
        roster.take_replies().send();
        assert!(late.try_recv().is_err());
        written(&mut roster, &KEPT);
        let mut satisfied = wait(&mut roster);
        roster.take_replies().send();
        assert!(late.try_recv().unwrap().is_ok());
        assert!(satisfied.try_recv().unwrap().is_ok());
    }
}
