//! Calls for users whose logs other transactions are creating.
//!
//! Whether such a transaction has ended shows only by waiting for a moment, in which no one can append. So its
//! users are remembered, and no call for one of them goes to the server. A few of the users are tried at a time, in
//! turn and after a pause. As long as their logs are no longer held, the next ones follow at once.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Call, MAX_SET_APART};
use crate::{StoreError, UserId};

/// Time until some are tried: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// How many users are tried at a time. One that is still held takes a millisecond, of the 20 that the database
/// spends on one batch.
const TRIED_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Held {
    users: HashSet<UserId>,
    /// The same users; those that were not tried for the longest time are first.
    turns: VecDeque<UserId>,
    /// Each is for one of the users.
    calls: Vec<Call>,
    /// When the next users are tried. `None` if none are held, or while some are tried.
    again_at: Option<Instant>,
    /// How long until then, once one of those that are tried is still held.
    pause: Duration,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            users: HashSet::new(),
            turns: VecDeque::new(),
            calls: Vec::new(),
            again_at: None,
            pause: PAUSES[0],
        }
    }
}

impl Held {
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Adds a call, and those of its users whose logs are held.
    pub(super) fn add(&mut self, call: Call, users: Vec<UserId>) {
        for user in users {
            if self.users.insert(user.clone()) {
                self.turns.push_back(user);
            }
        }
        self.calls.push(call);
        if self.again_at.is_none() {
            self.again_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(PAUSES[1]);
        }
    }

    /// Takes those calls of a batch that are for users whose logs are held, and returns the others.
    pub(super) fn set_apart(&mut self, batch: Vec<Call>) -> Vec<Call> {
        if self.users.is_empty() {
            return batch;
        }
        let (held, others): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|call| self.is_held(call));
        self.calls.extend(held);
        others
    }

    /// Forgets the next users if it is time to try them, and returns the calls that are for no other held ones. Gives
    /// up the calls that have waited too long.
    pub(super) fn take_due(&mut self) -> Vec<Call> {
        if self.again_at.is_none_or(|at| at > Instant::now()) {
            return Vec::new();
        }
        self.again_at = None;
        let tried = self.turns.len().min(TRIED_AT_ONCE);
        for user in self.turns.drain(..tried) {
            self.users.remove(&user);
        }
        let mut due = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            if call.request.patience.is_over() {
                call.reply(Err(StoreError::Locked));
            } else if self.is_held(&call) {
                self.calls.push(call);
            } else {
                due.push(call);
            }
        }
        due
    }

    /// Goes on after an attempt: at once, if none of those that were tried is still held. Gives up the latest of too many
    /// calls.
    pub(super) fn go_on(&mut self) {
        let most = self.calls.len().min(MAX_SET_APART);
        for call in self.calls.split_off(most) {
            call.reply(Err(StoreError::Locked));
        }
        if self.again_at.is_none() {
            self.pause = PAUSES[0];
            self.again_at = (!self.users.is_empty()).then(Instant::now);
        }
    }

    fn is_held(&self, call: &Call) -> bool {
        call.request.users().any(|user| self.users.contains(user))
    }
}
