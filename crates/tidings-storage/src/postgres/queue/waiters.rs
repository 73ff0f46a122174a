//! Requests that wait for their locks, over a connection of their own and beside the other requests.
//!
//! The database gives locks in the order of asking, so each instance has its turn at a log that all of them
//! write. What comes later for such a log joins those that wait: it would find the log locked, and a large
//! batch has done with it sooner.
//!
//! Some may wait in vain, for instance because an application keeps a transaction open. While they wait
//! they hold the locks they have got. So from then on a request waits only with those for the same users.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tidings_group_commit::{MAX_BYTES, MAX_ITEMS, Request};
use tidings_notify::UserId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Acceptor, Call, Locks, Missed, StorageError, accept};

/// Those that wait, and the one transaction in which some of them do.
pub(super) struct Waiters {
    acceptor: Arc<Acceptor>,
    calls: VecDeque<Call>,
    running: JoinSet<Missed>,
    /// Whose logs the transaction is about.
    users: HashSet<UserId>,
    /// Whether its calls have waited in vain before.
    is_in_vain: bool,
}

impl Waiters {
    pub(super) fn new(acceptor: Acceptor) -> Self {
        Self {
            acceptor: Arc::new(acceptor),
            calls: VecDeque::new(),
            running: JoinSet::new(),
            users: HashSet::new(),
            is_in_vain: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.running.is_empty()
    }

    pub(super) fn add(&mut self, calls: Vec<Call>) {
        self.calls.extend(calls);
    }

    /// Takes those calls of a batch for whose logs others wait, and returns the rest.
    pub(super) fn take_theirs(&mut self, batch: Vec<Call>) -> Vec<Call> {
        if self.is_idle() {
            return batch;
        }
        let waiting = self.calls.iter().flat_map(|call| call.request.users());
        let contended: HashSet<&UserId> = waiting.chain(&self.users).collect();
        let in_vain = self.calls.iter().filter(|call| call.request.has_waited);
        let in_vain = in_vain.flat_map(|call| call.request.users());
        let running = self.users.iter().filter(|_| self.is_in_vain);
        let in_vain: HashSet<&UserId> = in_vain.chain(running).collect();
        let (mut theirs, mut rest) = (Vec::new(), Vec::new());
        for mut call in batch {
            let request = &mut call.request;
            if request.users().any(|user| contended.contains(user)) {
                let with_those_in_vain = request.users().any(|user| in_vain.contains(user));
                request.has_waited |= with_those_in_vain;
                theirs.push(call);
            } else {
                rest.push(call);
            }
        }
        self.calls.extend(theirs);
        rest
    }

    /// Gives up those that have waited too long, and begins the next transaction if none runs.
    pub(super) fn go_on(&mut self) {
        let now = Instant::now();
        for call in std::mem::take(&mut self.calls) {
            if now >= call.request.give_up_at {
                call.reply(Err(StorageError::Locked));
            } else {
                self.calls.push_back(call);
            }
        }
        if self.running.is_empty()
            && let Some(batch) = self.next_batch()
        {
            self.is_in_vain = batch.iter().any(|call| call.request.has_waited);
            let users = batch.iter().flat_map(|call| call.request.users());
            self.users = users.cloned().collect();
            self.running.spawn(wait(Arc::clone(&self.acceptor), batch));
        }
    }

    /// Those that may wait in one transaction, beginning with one that has not waited in vain if there is
    /// one.
    fn next_batch(&mut self) -> Option<Vec<Call>> {
        let new = self.calls.iter().position(|it| !it.request.has_waited);
        let first = self.calls.remove(new.unwrap_or(0))?;
        let (mut items, mut bytes) = (first.request.items(), first.request.bytes());
        let mut batch = vec![first];
        for call in std::mem::take(&mut self.calls) {
            let (first, request) = (&batch[0].request, &call.request);
            let fits = request.has_waited == first.has_waited
                && (!first.has_waited || request.users().eq(first.users()))
                && items + request.items() <= MAX_ITEMS
                && bytes + request.bytes() <= MAX_BYTES;
            if fits {
                items += request.items();
                bytes += request.bytes();
                batch.push(call);
            } else {
                self.calls.push_back(call);
            }
        }
        Some(batch)
    }

    /// Waits for the end of the transaction, for ever if there is none, and returns the calls that it has
    /// not replied to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no call.
    pub(super) async fn missed(&mut self) -> Missed {
        let Some(ended) = self.running.join_next().await else {
            return std::future::pending().await;
        };
        self.users.clear();
        // If it has panicked, its callers get an error, because their calls are gone.
        ended.unwrap_or_default()
    }
}

async fn wait(acceptor: Arc<Acceptor>, batch: Vec<Call>) -> Missed {
    let waited = accept(&acceptor, batch, Locks::Wait).await;
    // Those whose logs are free need not wait for the others.
    let left = accept(&acceptor, waited.locked, Locks::LeaveOut).await;
    let mut locked = left.locked;
    locked.extend(left.busy.into_iter().chain(left.untried));
    for call in &mut locked {
        call.request.has_waited = true;
    }
    Missed {
        busy: waited.busy,
        locked,
        untried: waited.untried,
    }
}
