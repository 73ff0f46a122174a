//! Appends of many callers as one transaction.
//!
//! A log that another transaction holds delays only the callers who want to append to it: they are left
//! out and set apart ([`locked`]), hold no connection, and are tried again behind those that have come meanwhile. Those
//! whose log another transaction is creating are set apart too ([`held`]), because that is only noticed by waiting for
//! a moment, in which others cannot append. Of either kind there are [`MAX_SET_APART`] at most; more get
//! [`StoreError::Locked`].

mod held;
mod locked;

use std::sync::Arc;
use std::time::Duration;

use tidings_group_commit::{NotDone, Queue, Request};
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Connections, Error};
use tidings_reconnect::Cause;
use tokio::time::{Instant, sleep_until};

use super::announce::Announcer;
use super::append::{self, BatchError, CallOutcome};
use super::patience::Patience;
use crate::{Draft, Event, StoreError, UserId};
use held::Held;
use locked::Locked;

/// Most calls that wait for logs that others have locked, and most for logs that others are creating.
const MAX_SET_APART: usize = 1 << 13;

/// What one caller wants to append.
#[derive(Debug)]
pub(super) struct Append {
    drafts: Vec<Draft>,
    patience: Patience,
}

/// The events of a caller's drafts.
type Appended = Result<Vec<Event>, StoreError>;

type Call = tidings_group_commit::Call<Append, Appended>;

impl Append {
    fn users(&self) -> impl Iterator<Item = &UserId> {
        self.drafts.iter().map(Draft::user)
    }
}

impl Request for Append {
    fn items(&self) -> usize {
        self.drafts.len()
    }

    fn bytes(&self) -> usize {
        let bytes = |draft: &Draft| draft.payload.as_str().len();
        self.drafts.iter().map(bytes).sum()
    }
}

/// A call that could not be tried, and when it is tried again.
struct Untried {
    call: Call,
    again_at: Instant,
}

/// Takes what callers append. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct GroupCommit {
    queue: Queue<Append, Appended>,
    patience: Duration,
}

/// A queue, and the task that works it off until all ends of the queue are gone.
pub(super) fn group_commit(
    connections: Arc<Connections>,
    announcer: Announcer,
    patience: Duration,
) -> (GroupCommit, impl Future<Output = ()> + Send) {
    let (queue, calls) = tidings_group_commit::queue();
    let worker = Worker {
        connections,
        announcer,
        untried: Vec::new(),
        locked: Locked::default(),
        held: Held::default(),
    };
    (GroupCommit { queue, patience }, worker.run(calls))
}

impl GroupCommit {
    /// Appends drafts, together with those of other callers.
    pub(super) async fn append(&self, drafts: Vec<Draft>) -> Appended {
        let request = Append {
            drafts,
            patience: Patience::new(self.patience),
        };
        match self.queue.call(request).await {
            Ok(appended) => appended,
            Err(NotDone::Untaken(_)) => Err(StoreError::Closed),
            Err(taken @ NotDone::Taken) => Err(StoreError::OutcomeUnknown(Cause::new(taken))),
        }
    }
}

struct Worker {
    connections: Arc<Connections>,
    announcer: Announcer,
    untried: Vec<Untried>,
    locked: Locked,
    held: Held,
}

impl Worker {
    async fn run(mut self, mut calls: tidings_group_commit::Calls<Append, Appended>) {
        let mut is_open = true;
        while is_open || self.has_calls() {
            let untried = self.untried.iter().map(|untried| untried.again_at);
            let again_at = untried.chain(self.held.again_at());
            let again_at = again_at.chain(self.locked.again_at()).min();
            tokio::select! {
                has_calls = calls.wait(), if is_open => is_open = has_calls,
                () = until(again_at) => {}
            }
            calls.put_first(self.take_again());
            calls.put_first(self.held.take_due().into_iter());
            while let Some(batch) = calls.next_batch() {
                self.append(batch).await;
            }
            // Behind all that has come meanwhile.
            calls.put_first(self.locked.take_due().into_iter());
            while let Some(batch) = calls.next_batch() {
                self.append(batch).await;
            }
            self.locked.go_on();
            self.held.go_on();
        }
    }

    /// Whether calls wait for logs of others.
    fn has_calls(&self) -> bool {
        !self.untried.is_empty() || self.locked.has_calls() || self.held.has_calls()
    }

    /// Takes what is to be tried again by now.
    fn take_again(&mut self) -> impl DoubleEndedIterator<Item = Call> + use<> {
        let now = Instant::now();
        let (again, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.untried)
            .into_iter()
            .partition(|untried| untried.again_at <= now);
        self.untried = later;
        again.into_iter().map(|untried| untried.call)
    }

    async fn append(&mut self, calls: Vec<Call>) {
        let calls = self.held.set_apart(calls);
        let mut calls = self.locked.set_apart(calls);
        if calls.is_empty() {
            return;
        }
        let drafts: Vec<_> = calls
            .iter()
            .map(|call| call.request.drafts.as_slice())
            .collect();
        match append::batch(&self.connections, &drafts).await {
            Ok((outcomes, taken)) => {
                for (call, outcome) in calls.into_iter().zip(outcomes) {
                    match outcome {
                        CallOutcome::Appended(events) => {
                            let users = events.iter().map(|event| &event.user);
                            self.announcer.announce(users);
                            call.reply(Ok(events));
                        }
                        CallOutcome::BeingCreated(users) => self.held.add(call, users),
                        CallOutcome::Locked => self.locked.add(call, &taken),
                        CallOutcome::Untried => self.try_again(call),
                    }
                }
            }
            // One call may be the reason, so that the others are worth another attempt without it.
            Err(BatchError::Failed(error)) if calls.len() > 1 && is_of_one(&error) => {
                let second_half = calls.split_off(calls.len() / 2);
                for half in [calls, second_half] {
                    Box::pin(self.append(half)).await;
                }
            }
            Err(BatchError::Failed(error))
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                for call in calls {
                    self.try_again(call);
                }
            }
            Err(BatchError::Failed(error)) => {
                for call in calls {
                    call.reply(Err(error.clone().into()));
                }
            }
            // What cannot be read is stored: another attempt would store it twice.
            Err(BatchError::Unreadable(error)) => {
                for call in calls {
                    call.reply(Err(StoreError::OutcomeUnknown(error.clone().into())));
                }
            }
        }
    }

    fn try_again(&mut self, mut call: Call) {
        match call.request.patience.again_at() {
            Ok(again_at) => self.untried.push(Untried { call, again_at }),
            Err(late) => call.reply(Err(late)),
        }
    }
}

/// Whether one call of a batch may be the reason of an error, and not each would meet it again.
fn is_of_one(error: &Error) -> bool {
    let of_all = [
        &SqlState::DISK_FULL,
        // No log's, but that of a table.
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::QUERY_CANCELED,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    let is_refused = matches!(error, Error::Refused(_));
    is_refused && !error.code().is_some_and(|code| of_all.contains(&code))
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
