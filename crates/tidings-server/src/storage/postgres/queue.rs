//! Requests of many callers as one transaction.
//!
//! A request whose key, or the log of one of whose users, another transaction holds is left out and tried
//! again soon, because most locks are held for the time of a commit. Logs that several instances write all
//! the time would be locked each time one looks. So a request that was left out again and again goes into
//! a batch of such requests, which waits for its locks for a moment: the database gives them in the order
//! of asking. The others wait behind that batch. So once it did not get its locks, for instance because an
//! application keeps a transaction open, no batch waits for a while.

use std::time::Duration;

use tidings_group_commit::{Calls, Request};
use tidings_postgres::tokio_postgres::error::SqlState;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, Locks, Outcome};
use super::database_error;
use crate::storage::{Accept, Accepted, StorageError};

/// How often a request is left out before it waits for its locks.
const LEFT_OUT: u32 = 3;

/// Time until a request that was left out is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];

/// How long no batch waits for locks after one has not got them, in a tenth of a second.
const REST: Duration = Duration::from_secs(1);

/// What one caller wants to have accepted.
#[derive(Debug)]
struct Waiting {
    accept: Accept,
    /// When it has waited too long for another transaction.
    give_up_at: Instant,
    /// How often it was left out.
    left_out: u32,
    /// What becomes of it if a log is locked.
    locks: Locks,
}

type Reply = Result<Accepted, StorageError>;
type Call = tidings_group_commit::Call<Waiting, Reply>;

impl Waiting {
    /// Whether it was left out so often that it waits for its locks, together with its like.
    fn must_wait(&self) -> bool {
        self.left_out >= LEFT_OUT
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

    fn fits(&self, earlier: &Self) -> bool {
        self.locks == earlier.locks
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

/// A queue, and the task that works it off until it is closed. A request waits `patience` at most for
/// other transactions.
pub(super) fn queue(
    acceptor: Acceptor,
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
        let worker = Worker {
            acceptor,
            left_out: Vec::new(),
            waits_from: Instant::now(),
        };
        worker.run(taken).await;
    };
    (queue, working)
}

impl Queue {
    pub(super) async fn accept(&self, accept: Accept) -> Reply {
        let request = Waiting {
            accept,
            give_up_at: Instant::now() + self.patience,
            left_out: 0,
            locks: Locks::LeaveOut,
        };
        let calls = self.lock().clone().ok_or(StorageError::Closed)?;
        let called = calls.call(request).await;
        called.unwrap_or(Err(StorageError::Closed))
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

struct Worker {
    acceptor: Acceptor,
    left_out: Vec<LeftOut>,
    /// Before this time no batch waits for locks.
    waits_from: Instant,
}

impl Worker {
    async fn run(mut self, mut calls: Calls<Waiting, Reply>) {
        let mut is_open = true;
        while is_open || !self.left_out.is_empty() {
            let again_at = self.left_out.iter().map(|it| it.again_at).min();
            tokio::select! {
                has_calls = calls.wait(), if is_open => is_open = has_calls,
                () = until(again_at) => {}
            }
            calls.put_first(self.take_again());
            while let Some(batch) = calls.next_batch() {
                self.accept(batch).await;
            }
        }
    }

    /// Takes what is to be tried again by now; those that wait for their locks come together.
    fn take_again(&mut self) -> impl DoubleEndedIterator<Item = Call> + use<> {
        let now = Instant::now();
        let (mut again, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_out)
            .into_iter()
            .partition(|it| it.again_at <= now);
        self.left_out = later;
        for LeftOut { call, .. } in &mut again {
            call.request.locks = if call.request.must_wait() {
                Locks::Wait
            } else {
                Locks::LeaveOut
            };
        }
        again.sort_by_key(|it| it.call.request.locks == Locks::Wait);
        again.into_iter().map(|it| it.call)
    }

    async fn accept(&mut self, mut calls: Vec<Call>) {
        let locks = calls
            .first()
            .map_or(Locks::LeaveOut, |call| call.request.locks);
        let requests: Vec<&Accept> = calls.iter().map(|call| &call.request.accept).collect();
        match self.acceptor.accept(&requests, locks).await {
            Ok(outcomes) => {
                for (call, outcome) in calls.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Done(accepted) => call.reply(Ok(accepted)),
                        Outcome::Busy => self.try_again(call),
                    }
                }
            }
            Err(error) => match database_error(&error).and_then(tidings_postgres::Error::code) {
                // Those whose logs are free need not wait for the others.
                Some(code) if locks == Locks::Wait && is_about_locks(code) => {
                    self.waits_from = Instant::now() + REST;
                    for call in &mut calls {
                        call.request.locks = Locks::LeaveOut;
                    }
                    Box::pin(self.accept(calls)).await;
                }
                // Some request of the batch may be the reason, so that the others are worth another
                // attempt without it, unless all have waited for locks already.
                Some(code)
                    if calls.len() > 1
                        && !is_for_all(code)
                        && !(is_about_locks(code)
                            && calls.iter().all(|call| call.request.must_wait())) =>
                {
                    for call in calls {
                        Box::pin(self.accept(vec![call])).await;
                    }
                }
                // Also when another transaction is creating the log of one of the users, or each of two
                // transactions holds what the other one waits for. Looking has cost a wait, so that the
                // request does not meet the others again.
                Some(code) if is_about_locks(code) => {
                    for mut call in calls {
                        call.request.left_out = call.request.left_out.max(LEFT_OUT);
                        self.try_again(call);
                    }
                }
                _ => {
                    for call in calls {
                        call.reply(Err(error.clone()));
                    }
                }
            },
        }
    }

    fn try_again(&mut self, mut call: Call) {
        let now = Instant::now();
        let request = &mut call.request;
        if now >= request.give_up_at {
            call.reply(Err(StorageError::Locked));
            return;
        }
        let [first, longest] = PAUSES;
        let pause = first.saturating_mul(1 << request.left_out.min(16));
        let mut again_at = now + pause.min(longest);
        if request.must_wait() {
            again_at = again_at.max(self.waits_from);
        }
        let again_at = again_at.min(request.give_up_at);
        request.left_out += 1;
        self.left_out.push(LeftOut { call, again_at });
    }
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
