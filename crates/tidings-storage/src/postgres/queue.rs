//! Requests of many callers as one transaction.
//!
//! A request whose key, or the log of one of whose users, another transaction holds is left out and tried
//! again soon, because most locks are held for the time of a commit. Logs that several instances write all
//! the time would be locked each time one looks. So a request that was left out again and again waits for
//! its locks (`waiters.rs`), and so does at once one for a user whose log another transaction is creating: each look
//! at such a log takes a moment, in which nothing else is accepted.

mod waiters;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use tidings_group_commit::{Calls, NotDone, Request};
use tidings_notify::{Draft, UserId};
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_reconnect::Cause;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::waiters::Waiters;
use super::accept::{Acceptor, Locks, Outcome};
use super::database_error;
use crate::{Accept, Accepted, StorageError};

/// How often a request is left out before it waits for its locks.
const LEFT_OUT: u32 = 3;

/// Time until a request that was left out is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];

/// Time until the task begins again after a panic.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(1);

/// What one caller wants to have accepted.
#[derive(Debug)]
struct Waiting {
    accept: Accept,
    /// When it has waited too long for another transaction.
    give_up_at: Instant,
    /// How often it was left out.
    left_out: u32,
    /// Whether it has waited for its locks and not got them.
    has_waited: bool,
}

type Reply = Result<Accepted, StorageError>;
type Call = tidings_group_commit::Call<Waiting, Reply>;

impl Waiting {
    /// Whether it was left out so often that it waits for its locks.
    fn must_wait(&self) -> bool {
        self.left_out >= LEFT_OUT
    }

    fn users(&self) -> impl Iterator<Item = &UserId> {
        self.accept.drafts.iter().map(Draft::user)
    }
}

impl Request for Waiting {
    fn items(&self) -> usize {
        self.accept.drafts.len()
    }

    fn bytes(&self) -> usize {
        let drafts = self.accept.drafts.iter();
        drafts.map(|draft| draft.payload().as_str().len()).sum()
    }
}

/// Takes requests, until it is closed.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` once it is closed.
    calls: std::sync::Mutex<Option<tidings_group_commit::Queue<Waiting, Reply>>>,
    ended: CancellationToken,
    patience: Duration,
}

/// A queue, and the task that works it off until it is closed. `waiting` accepts those that wait for their
/// locks. A request waits `patience` at most for other transactions.
pub(super) fn queue(
    acceptor: Acceptor,
    waiting: Acceptor,
    patience: Duration,
) -> (Queue, impl Future<Output = ()> + Send) {
    let (calls, taken) = tidings_group_commit::queue();
    let ended = CancellationToken::new();
    let queue = Queue {
        calls: std::sync::Mutex::new(Some(calls)),
        ended: ended.clone(),
        patience,
    };
    let working = async move {
        let _ended = ended.drop_guard();
        let mut worker = Worker {
            acceptor,
            left_out: Vec::new(),
            waiters: Waiters::new(waiting),
        };
        let mut taken = taken;
        // The callers of what it has in hand then get an error.
        while AssertUnwindSafe(worker.run(&mut taken))
            .catch_unwind()
            .await
            .is_err()
        {
            // A tracing layer may have panicked, and may panic again.
            let _panicked = catch_unwind(|| {
                tracing::error!("the task that accepts notifications panicked, and begins again");
            });
            sleep(PAUSE_AFTER_PANIC).await;
        }
    };
    (queue, working)
}

impl Queue {
    pub(super) async fn accept(&self, accept: Accept) -> Reply {
        let request = Waiting {
            accept,
            give_up_at: Instant::now() + self.patience,
            left_out: 0,
            has_waited: false,
        };
        let calls = self.lock().clone().ok_or(StorageError::Closed)?;
        match calls.call(request).await {
            Ok(accepted) => accepted,
            Err(NotDone::Untaken(_)) => Err(StorageError::Closed),
            Err(taken @ NotDone::Taken) => Err(StorageError::OutcomeUnknown {
                source: Cause::new(taken),
            }),
        }
    }

    /// Refuses later requests, and waits for those that were taken.
    pub(super) async fn close(&self) {
        self.lock().take();
        self.ended.cancelled().await;
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, Option<tidings_group_commit::Queue<Waiting, Reply>>> {
        // It is replaced as a whole, so a poisoned lock is still right.
        let lock = self.calls.lock();
        lock.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A call that is tried again at a time.
struct LeftOut {
    call: Call,
    again_at: Instant,
}

/// What became of the calls of a transaction that have no reply yet. Nothing of them was stored.
#[derive(Default)]
struct Missed {
    /// Their keys or logs are held at the moment.
    busy: Vec<Call>,
    /// They have waited for a lock in vain.
    locked: Vec<Call>,
    /// Nothing is known of their locks.
    untried: Vec<Call>,
}

impl Missed {
    fn extend(&mut self, other: Self) {
        self.busy.extend(other.busy);
        self.locked.extend(other.locked);
        self.untried.extend(other.untried);
    }
}

struct Worker {
    acceptor: Acceptor,
    left_out: Vec<LeftOut>,
    waiters: Waiters,
}

impl Worker {
    async fn run(&mut self, calls: &mut Calls<Waiting, Reply>) {
        let mut is_open = true;
        while is_open || !self.left_out.is_empty() || !self.waiters.is_idle() {
            let again_at = self.left_out.iter().map(|it| it.again_at).min();
            tokio::select! {
                has_calls = calls.wait(), if is_open => is_open = has_calls,
                missed = self.waiters.missed() => self.try_again(missed),
                () = until(again_at) => {}
            }
            let (wait, again): (Vec<_>, Vec<_>) =
                self.take_due().partition(|call| call.request.must_wait());
            self.waiters.add(wait);
            calls.put_first(again.into_iter());
            while let Some(batch) = calls.next_batch() {
                let batch = self.waiters.take_theirs(batch);
                let missed = accept(&self.acceptor, batch, Locks::LeaveOut).await;
                self.try_again(missed);
            }
            self.waiters.go_on();
        }
    }

    /// Takes what is to be tried again by now.
    fn take_due(&mut self) -> impl Iterator<Item = Call> + use<> {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_out)
            .into_iter()
            .partition(|it| it.again_at <= now);
        self.left_out = later;
        due.into_iter().map(|it| it.call)
    }

    fn try_again(&mut self, missed: Missed) {
        self.waiters.add(missed.locked);
        let [first, longest] = PAUSES;
        for call in missed.untried {
            self.leave_out(call, first);
        }
        for mut call in missed.busy {
            let request = &mut call.request;
            let pause = first.saturating_mul(1 << request.left_out.min(16));
            request.left_out += 1;
            self.leave_out(call, pause.min(longest));
        }
    }

    /// Has a call tried again after a pause, unless it has waited too long.
    fn leave_out(&mut self, call: Call, pause: Duration) {
        let (now, give_up_at) = (Instant::now(), call.request.give_up_at);
        if now >= give_up_at {
            call.reply(Err(StorageError::Locked));
            return;
        }
        let again_at = (now + pause).min(give_up_at);
        self.left_out.push(LeftOut { call, again_at });
    }
}

/// Accepts the requests in one transaction, if possible, and replies. Returns those that have no reply yet.
async fn accept(acceptor: &Acceptor, mut calls: Vec<Call>, locks: Locks) -> Missed {
    let mut missed = Missed::default();
    if calls.is_empty() {
        return missed;
    }
    let requests: Vec<&Accept> = calls.iter().map(|call| &call.request.accept).collect();
    match acceptor.accept(&requests, locks).await {
        Ok(outcomes) => {
            for (call, outcome) in calls.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Done(accepted) => call.reply(Ok(accepted)),
                    Outcome::Busy => missed.busy.push(call),
                    Outcome::BeingCreated => missed.locked.push(call),
                    Outcome::Untried => missed.untried.push(call),
                }
            }
        }
        Err(error) => match database_error(&error).and_then(tidings_postgres::Error::code) {
            // Also when each of two transactions holds what the other one waits for.
            Some(code) if is_about_locks(code) && (locks == Locks::Wait || calls.len() == 1) => {
                missed.locked = calls;
            }
            // Some request of the batch may be the reason, so that the others are worth another
            // attempt without it.
            Some(code) if calls.len() > 1 && !is_for_all(code) => {
                let second_half = calls.split_off(calls.len() / 2);
                for half in [calls, second_half] {
                    missed.extend(Box::pin(accept(acceptor, half, Locks::LeaveOut)).await);
                }
            }
            _ => {
                for call in calls {
                    call.reply(Err(error.clone()));
                }
            }
        },
    }
    missed
}

fn is_about_locks(code: &SqlState) -> bool {
    [
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::T_R_SERIALIZATION_FAILURE,
    ]
    .contains(&code)
}

/// Whether every request of a batch would meet this error again.
fn is_for_all(code: &SqlState) -> bool {
    [
        &SqlState::DISK_FULL,
        &SqlState::QUERY_CANCELED,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
    ]
    .contains(&code)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
