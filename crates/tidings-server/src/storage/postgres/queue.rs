//! Requests of many callers as one transaction.
//!
//! What arrives while a batch is under way makes the next one: a request that comes alone does not wait,
//! and no delay is added to fill a batch.
//!
//! A request whose key, or the log of one of whose users, another transaction holds is left out and tried
//! again soon, because most locks are held for the time of a commit. Logs that several instances write all
//! the time would be locked each time one looks. So a request that was left out again and again goes into
//! a batch of such requests, which waits for its locks for a moment: the database gives them in the order
//! of asking.

use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::accept::{Acceptor, Locks, Outcome};
use super::database_error;
use crate::storage::{Accept, Accepted, StorageError};

/// Requests that may wait in the queue before the next one waits to get in.
const QUEUE: usize = 1024;

/// Most notifications of one batch, unless a single request has more.
const MAX_DRAFTS: usize = 1000;

/// Most payload bytes of one batch, unless a single request has more.
const MAX_BYTES: usize = 4 << 20;

/// How often a request is left out before it waits for its locks.
const LEFT_OUT: u32 = 3;

/// Time until a request that was left out is tried again: at first, and at most. While a request waits for
/// a lock that is not given, for a tenth of a second, the others wait too; so it waits seldom.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];

/// Another transaction did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("another transaction holds the log of one of the users, or the idempotency key")]
struct Busy;

struct Request {
    accept: Accept,
    reply: oneshot::Sender<Result<Accepted, StorageError>>,
    /// When it has waited too long for another transaction.
    give_up_at: Instant,
    /// How often it was left out.
    left_out: u32,
}

struct LeftOut {
    request: Request,
    again_at: Instant,
}

/// Takes requests. Clones share the queue.
#[derive(Debug)]
pub(super) struct Queue {
    requests: std::sync::Mutex<Option<mpsc::Sender<Request>>>,
    ended: tokio_util::sync::CancellationToken,
    patience: Duration,
}

/// A queue, and the task that works it off until it is closed. A request waits `patience` at most for
/// other transactions.
pub(super) fn queue(
    acceptor: Acceptor,
    patience: Duration,
) -> (Queue, impl Future<Output = ()> + Send) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let ended = tokio_util::sync::CancellationToken::new();
    let queue = Queue {
        requests: std::sync::Mutex::new(Some(sender)),
        ended: ended.clone(),
        patience,
    };
    let worker = Worker {
        acceptor,
        left_out: Vec::new(),
    };
    let working = async move {
        let _ended = ended.drop_guard();
        worker.run(requests).await;
    };
    (queue, working)
}

impl Queue {
    pub(super) async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError> {
        let (reply, replied) = oneshot::channel();
        let request = Request {
            accept,
            reply,
            give_up_at: Instant::now() + self.patience,
            left_out: 0,
        };
        let requests = self.lock().clone().ok_or(StorageError::Closed)?;
        let sent = requests.send(request).await;
        drop(requests);
        sent.map_err(|_ended| StorageError::Closed)?;
        replied.await.unwrap_or(Err(StorageError::Closed))
    }

    /// Refuses later requests, and waits for those that were taken.
    pub(super) async fn close(&self) {
        self.lock().take();
        self.ended.cancelled().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Request>>> {
        let lock = self.requests.lock();
        lock.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Worker {
    acceptor: Acceptor,
    left_out: Vec<LeftOut>,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(QUEUE);
        let mut is_open = true;
        while is_open || !self.left_out.is_empty() {
            let again_at = self.left_out.iter().map(|it| it.again_at).min();
            tokio::select! {
                count = requests.recv_many(&mut waiting, QUEUE), if is_open => is_open = count > 0,
                () = until(again_at) => {}
            }
            self.take_again(&mut waiting);
            // Their callers have gone, and nothing of them has been sent.
            waiting.retain(|request| !request.reply.is_closed());
            let mut waiting = waiting.drain(..).peekable();
            while let Some(first) = waiting.next() {
                let mut batch = Batch::new(first);
                while let Some(request) = waiting.next_if(|request| batch.has_room_for(request)) {
                    batch.add(request);
                }
                self.accept(batch).await;
            }
        }
    }

    /// Moves what is to be tried again before what came later.
    fn take_again(&mut self, waiting: &mut Vec<Request>) {
        let now = Instant::now();
        let (again, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_out)
            .into_iter()
            .partition(|it| it.again_at <= now);
        self.left_out = later;
        let mut again: Vec<_> = again.into_iter().map(|it| it.request).collect();
        // Those that wait for their locks make batches of their own.
        again.sort_by_key(|request| locks(request) == Locks::Wait);
        waiting.splice(0..0, again);
    }

    async fn accept(&mut self, batch: Batch) {
        let Batch {
            callers,
            accepts,
            locks,
            ..
        } = batch;
        match self.acceptor.accept(&accepts, locks).await {
            Ok(outcomes) => {
                for ((caller, accept), outcome) in callers.into_iter().zip(accepts).zip(outcomes) {
                    match outcome {
                        Outcome::Done(accepted) => reply(caller.reply, Ok(accepted)),
                        Outcome::Busy => self.try_again(caller.with(accept)),
                    }
                }
            }
            Err(error) => match database_error(&error).and_then(tidings_postgres::Error::code) {
                // Some request of the batch may be the reason, so that the others are worth another
                // attempt without it.
                Some(code) if accepts.len() > 1 && !is_passing(code) => {
                    for (caller, accept) in callers.into_iter().zip(accepts) {
                        Box::pin(self.accept(Batch::new(caller.with(accept)))).await;
                    }
                }
                // Also when another transaction is creating the log of one of the users, or each of two
                // transactions holds what the other one waits for.
                Some(code) if is_about_locks(code) => {
                    for (caller, accept) in callers.into_iter().zip(accepts) {
                        self.try_again(caller.with(accept));
                    }
                }
                _ => {
                    for caller in callers {
                        reply(caller.reply, Err(error.clone()));
                    }
                }
            },
        }
    }

    fn try_again(&mut self, mut request: Request) {
        let now = Instant::now();
        if now >= request.give_up_at {
            reply(request.reply, Err(StorageError::unavailable(Busy)));
            return;
        }
        let [first, longest] = PAUSES;
        let pause = first
            .saturating_mul(1 << request.left_out.min(16))
            .min(longest);
        let again_at = (now + pause).min(request.give_up_at);
        request.left_out += 1;
        self.left_out.push(LeftOut { request, again_at });
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
fn is_passing(code: &SqlState) -> bool {
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

fn reply(
    reply: oneshot::Sender<Result<Accepted, StorageError>>,
    result: Result<Accepted, StorageError>,
) {
    // An error means that the caller has dropped its future.
    drop(reply.send(result));
}

/// A request without what it wants stored.
struct Caller {
    reply: oneshot::Sender<Result<Accepted, StorageError>>,
    give_up_at: Instant,
    left_out: u32,
}

impl Caller {
    fn with(self, accept: Accept) -> Request {
        Request {
            accept,
            reply: self.reply,
            give_up_at: self.give_up_at,
            left_out: self.left_out,
        }
    }
}

/// Requests that share a transaction.
struct Batch {
    callers: Vec<Caller>,
    accepts: Vec<Accept>,
    locks: Locks,
    drafts: usize,
    bytes: usize,
}

impl Batch {
    fn new(first: Request) -> Self {
        let mut batch = Self {
            callers: Vec::new(),
            accepts: Vec::new(),
            locks: locks(&first),
            drafts: 0,
            bytes: 0,
        };
        batch.add(first);
        batch
    }

    fn has_room_for(&self, request: &Request) -> bool {
        self.locks == locks(request)
            && self.drafts + request.accept.drafts.len() <= MAX_DRAFTS
            && self.bytes + bytes(&request.accept) <= MAX_BYTES
    }

    fn add(&mut self, request: Request) {
        self.drafts += request.accept.drafts.len();
        self.bytes += bytes(&request.accept);
        self.callers.push(Caller {
            reply: request.reply,
            give_up_at: request.give_up_at,
            left_out: request.left_out,
        });
        self.accepts.push(request.accept);
    }
}

fn locks(request: &Request) -> Locks {
    if request.left_out < LEFT_OUT {
        Locks::LeaveOut
    } else {
        Locks::Wait
    }
}

fn bytes(accept: &Accept) -> usize {
    let bytes = accept
        .drafts
        .iter()
        .map(|draft| draft.payload().as_str().len());
    bytes.sum()
}
