//! Calls for users whose logs other transactions have locked.
//!
//! No call for one of them goes to the server, which would look at all of its drafts for nothing. After a pause some
//! calls are tried, and if the log is still locked, all others for it wait again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tidings_group_commit::{MAX_BYTES, MAX_ITEMS, Request};
use tokio::time::Instant;

use super::{Call, MAX_SET_APART};
use crate::store::postgres::patience::PAUSES;
use crate::{StoreError, UserId};

#[derive(Debug, Default)]
pub(super) struct Locked {
    users: HashMap<UserId, Turn>,
    /// In the order of their arrival.
    calls: Vec<Call>,
    /// Whether some of the calls are for none of the users.
    has_ready: bool,
}

#[derive(Debug)]
struct Turn {
    /// When calls for the user are tried again. `None` while some are.
    again_at: Option<Instant>,
    /// How long until then, once the log is locked the next time.
    pause: Duration,
}

impl Locked {
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// When there is something to be tried.
    pub(super) fn again_at(&self) -> Option<Instant> {
        if self.has_ready {
            return Some(Instant::now());
        }
        self.users.values().filter_map(|turn| turn.again_at).min()
    }

    /// Adds a call, and those of its users whose logs are locked.
    pub(super) fn add(&mut self, call: Call, locked: &HashSet<UserId>) {
        let now = Instant::now();
        for user in call.request.users().filter(|user| locked.contains(*user)) {
            let turn = self.users.entry(user.clone()).or_insert(Turn {
                again_at: None,
                pause: PAUSES[0],
            });
            if turn.again_at.is_none() {
                turn.again_at = Some(now + turn.pause);
                turn.pause = (turn.pause * 2).min(PAUSES[1]);
            }
        }
        self.has_ready |= !self.waits(&call);
        self.calls.push(call);
    }

    /// Takes those calls of a batch that are for users whose logs are locked, and returns the others.
    pub(super) fn set_apart(&mut self, batch: Vec<Call>) -> Vec<Call> {
        if self.users.is_empty() {
            return batch;
        }
        let (locked, others): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|call| self.waits(call));
        self.calls.extend(locked);
        others
    }

    /// Takes calls whose time has come, as many as go into one batch. Gives up those that have waited too long.
    pub(super) fn take_due(&mut self) -> Vec<Call> {
        let now = Instant::now();
        if !self.has_ready && self.again_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        for turn in self.users.values_mut() {
            turn.again_at = turn.again_at.filter(|at| *at > now);
        }
        self.has_ready = false;
        let mut due: Vec<Call> = Vec::new();
        let (mut items, mut bytes) = (0, 0);
        for call in std::mem::take(&mut self.calls) {
            if call.request.patience.is_over() {
                call.reply(Err(StoreError::Locked));
                continue;
            }
            if self.waits(&call) {
                self.calls.push(call);
                continue;
            }
            items += call.request.items();
            bytes += call.request.bytes();
            if due.is_empty() || items <= MAX_ITEMS && bytes <= MAX_BYTES {
                due.push(call);
            } else {
                self.has_ready = true;
                self.calls.push(call);
            }
        }
        due
    }

    /// Forgets the users whose logs were tried and are locked no longer, and gives up the latest of too many calls.
    pub(super) fn go_on(&mut self) {
        self.users.retain(|_, turn| turn.again_at.is_some());
        let most = self.calls.len().min(MAX_SET_APART);
        for call in self.calls.split_off(most) {
            call.reply(Err(StoreError::Locked));
        }
    }

    /// Whether a call is for a user whose log is locked.
    fn waits(&self, call: &Call) -> bool {
        let is_waiting = |user| {
            let turn = self.users.get(user);
            turn.is_some_and(|turn| turn.again_at.is_some())
        };
        call.request.users().any(is_waiting)
    }
}
