//! Appends of many callers as one transaction.
//!
//! What is appended while a batch is under way makes the next one: a caller that comes alone does not
//! wait, and no delay is added to fill a batch. A log that another transaction holds delays only the
//! callers who want to append to it: they are left out, hold no connection, and are tried again with
//! later batches.

use std::sync::Arc;
use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::announce::Announcer;
use super::append::{self, BatchError};
use super::connections::{Connections, Failure};
use crate::{Draft, Event, StoreError};

/// Callers that may wait in the queue before the next one waits to get in.
const QUEUE: usize = 1024;

/// Most drafts of one batch, unless a single caller has more.
const MAX_DRAFTS: usize = 1000;

/// Most payload bytes of one batch, unless a single caller has more.
const MAX_BYTES: usize = 4 << 20;

/// Time until a caller whose users' logs were locked is tried again: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// What one caller wants.
struct Request {
    drafts: Vec<Draft>,
    reply: oneshot::Sender<Result<Vec<Event>, StoreError>>,
    /// When the caller has waited too long for a lock.
    give_up_at: Instant,
    pause: Duration,
}

/// The shortest such time for a caller whose user's log another transaction is creating: that is only
/// noticed by waiting for a moment, in which others cannot append.
const CREATION_PAUSE: Duration = Duration::from_millis(200);

/// A request whose logs were locked, and when it is tried again.
struct Locked {
    request: Request,
    again_at: Instant,
}

/// Takes what callers append. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct GroupCommit {
    requests: mpsc::Sender<Request>,
    patience: Duration,
}

/// A queue, and the task that works it off until all ends of the queue are gone.
pub(super) fn group_commit(
    connections: Arc<Connections>,
    announcer: Announcer,
    patience: Duration,
) -> (GroupCommit, impl Future<Output = ()> + Send) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let worker = Worker {
        connections,
        announcer,
        locked: Vec::new(),
    };
    let queue = GroupCommit {
        requests: sender,
        patience,
    };
    (queue, worker.run(requests))
}

impl GroupCommit {
    /// Appends drafts, together with those of other callers.
    pub(super) async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        let (reply, replied) = oneshot::channel();
        let request = Request {
            drafts,
            reply,
            give_up_at: Instant::now() + self.patience,
            pause: PAUSES[0],
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_ended| StoreError::Closed)?;
        replied.await.unwrap_or(Err(StoreError::Closed))
    }
}

struct Worker {
    connections: Arc<Connections>,
    announcer: Announcer,
    locked: Vec<Locked>,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(QUEUE);
        let mut is_open = true;
        while is_open || !self.locked.is_empty() {
            let again_at = self.locked.iter().map(|locked| locked.again_at).min();
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
                self.append(batch.requests).await;
            }
        }
    }

    /// Moves what is to be tried again before what came later.
    fn take_again(&mut self, waiting: &mut Vec<Request>) {
        let now = Instant::now();
        let (again, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.locked)
            .into_iter()
            .partition(|locked| locked.again_at <= now);
        self.locked = later;
        let again = again.into_iter().map(|locked| locked.request);
        waiting.splice(0..0, again);
    }

    async fn append(&mut self, mut requests: Vec<Request>) {
        let calls: Vec<_> = requests
            .iter_mut()
            .map(|request| std::mem::take(&mut request.drafts))
            .collect();
        let appended = append::batch(&self.connections, &calls).await;
        match appended {
            Ok(outcomes) => {
                for ((mut request, drafts), events) in requests.into_iter().zip(calls).zip(outcomes)
                {
                    if let Some(events) = events {
                        self.announcer
                            .announce(events.iter().map(|event| &event.user));
                        reply(request.reply, Ok(events));
                    } else {
                        request.drafts = drafts;
                        self.try_again(request);
                    }
                }
            }
            // One call may be the reason, so that the others are worth another attempt without it.
            Err(BatchError::Failed(Failure::Database(error)))
                if requests.len() > 1 && matches!(error, tidings_postgres::Error::Refused(_)) =>
            {
                for (mut request, drafts) in requests.into_iter().zip(calls) {
                    request.drafts = drafts;
                    Box::pin(self.append(vec![request])).await;
                }
            }
            Err(BatchError::Failed(Failure::Database(error)))
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                for (mut request, drafts) in requests.into_iter().zip(calls) {
                    request.drafts = drafts;
                    request.pause = CREATION_PAUSE;
                    self.try_again(request);
                }
            }
            Err(BatchError::Failed(failure)) => {
                for request in requests {
                    reply(request.reply, Err(failure.clone().into()));
                }
            }
            Err(BatchError::Unreadable(error)) => {
                let text = error.to_string();
                for request in requests {
                    reply(request.reply, Err(StoreError::backend(text.clone())));
                }
            }
        }
    }

    fn try_again(&mut self, mut request: Request) {
        let now = Instant::now();
        if now >= request.give_up_at {
            let locked = "another transaction holds the log of one of the users";
            let source = locked.into();
            reply(request.reply, Err(StoreError::Unavailable { source }));
            return;
        }
        let again_at = now + request.pause;
        request.pause = (request.pause * 2).min(PAUSES[1]);
        self.locked.push(Locked { request, again_at });
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn reply(
    reply: oneshot::Sender<Result<Vec<Event>, StoreError>>,
    result: Result<Vec<Event>, StoreError>,
) {
    // An error means that the caller has dropped its future.
    drop(reply.send(result));
}

/// Requests that share a transaction.
struct Batch {
    requests: Vec<Request>,
    drafts: usize,
    bytes: usize,
}

impl Batch {
    fn new(first: Request) -> Self {
        let mut batch = Self {
            requests: Vec::new(),
            drafts: 0,
            bytes: 0,
        };
        batch.add(first);
        batch
    }

    fn has_room_for(&self, request: &Request) -> bool {
        self.drafts + request.drafts.len() <= MAX_DRAFTS
            && self.bytes + bytes(&request.drafts) <= MAX_BYTES
    }

    fn add(&mut self, request: Request) {
        self.drafts += request.drafts.len();
        self.bytes += bytes(&request.drafts);
        self.requests.push(request);
    }
}

fn bytes(drafts: &[Draft]) -> usize {
    let bytes = |draft: &Draft| draft.payload.as_str().len();
    drafts.iter().map(bytes).sum()
}
