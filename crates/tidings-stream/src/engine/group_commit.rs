//! Appends of many callers as one.
//!
//! A store that waits for its disk, or for its server, takes a batch about as fast as one message.
//! Whatever is published to a stream while a batch of it is under way makes the next one: a caller
//! that comes alone does not wait, and no delay is added to fill a batch.
//!
//! ```text
//! callers ──▶ queue of the stream ──▶ one task ──▶ append(a, b, c …) ──▶ each its own ids
//! ```

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, MessageId, NewMessage, Retention, StreamName};

/// Callers that may wait in the queue of one stream before the next one waits to get in.
const QUEUE: usize = 1024;

/// Most messages of one batch, unless a single caller has more.
const MAX_MESSAGES: usize = 1000;

/// Most payload bytes of one batch, unless a single caller has more.
const MAX_BYTES: usize = 4 << 20;

/// How long a stream's task waits for another caller before it ends.
const LINGER: Duration = Duration::from_secs(5);

/// What appends a batch: an engine.
pub(crate) trait Append: Send + Sync + 'static {
    /// Appends messages as [`Engine::append`](crate::engine::Engine::append) does, and returns an id
    /// for each.
    fn append(
        &self,
        stream: &StreamName,
        messages: &[NewMessage],
        retention: Option<Retention>,
    ) -> impl Future<Output = Result<Vec<MessageId>, AppendError>> + Send;
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The store refused it, and certainly kept nothing. Some message may be the reason, so that the
    /// others are worth another attempt without it.
    #[cfg_attr(
        not(any(test, feature = "postgres")),
        expect(
            dead_code,
            reason = "no message is the reason why Redis refuses a batch"
        )
    )]
    Refused(Error),
    /// Something that another attempt now would meet again, or that leaves it open what happened.
    Failed(Error),
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(error) | AppendError::Failed(error) => error,
        }
    }
}

/// The queues of one engine. Dropping it ends its tasks.
pub(crate) struct GroupCommit<A> {
    append: Arc<A>,
    queues: Arc<Queues>,
}

/// The queues of the streams that were published to lately.
type Queues = Mutex<HashMap<StreamName, StreamQueue>>;

struct StreamQueue {
    requests: mpsc::Sender<Request>,
    _task: AbortOnDropHandle<()>,
}

/// What one caller wants.
struct Request {
    messages: Vec<NewMessage>,
    retention: Option<Retention>,
    reply: oneshot::Sender<Result<Vec<MessageId>, Error>>,
}

impl<A: Append> GroupCommit<A> {
    pub(crate) fn new(append: Arc<A>) -> Self {
        Self {
            append,
            queues: Arc::default(),
        }
    }

    /// Appends messages, together with those of other callers that wait for this stream with the
    /// same retention.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have appended its messages, never a part of them.
    pub(crate) async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, Error> {
        let (reply, replied) = oneshot::channel();
        let mut request = Request {
            messages,
            retention,
            reply,
        };
        // A queue whose runtime ends hands back what it has not taken.
        while let Err(unsent) = self.queue(stream).send(request).await {
            request = unsent.0;
        }
        replied
            .await
            .unwrap_or_else(|ended| Err(Error::outcome_unknown(ended)))
    }

    fn queue(&self, stream: &StreamName) -> mpsc::Sender<Request> {
        let mut queues = lock(&self.queues);
        // A task whose runtime has ended is gone without having said so.
        if let Some(existing) = queues.get(stream)
            && !existing.requests.is_closed()
        {
            return existing.requests.clone();
        }
        let (sender, requests) = mpsc::channel(QUEUE);
        let work = work_off(
            Arc::clone(&self.append),
            Arc::clone(&self.queues),
            stream.clone(),
            requests,
        );
        let queue = StreamQueue {
            requests: sender.clone(),
            _task: AbortOnDropHandle::new(tokio::spawn(work)),
        };
        queues.insert(stream.clone(), queue);
        sender
    }
}

impl<A> Drop for GroupCommit<A> {
    fn drop(&mut self) {
        // The tasks know the map that holds their handles.
        let queues = std::mem::take(&mut *lock(&self.queues));
        drop(queues);
    }
}

impl<A> fmt::Debug for GroupCommit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").finish_non_exhaustive()
    }
}

fn lock(queues: &Queues) -> MutexGuard<'_, HashMap<StreamName, StreamQueue>> {
    // The map is whole after every statement, so a panic elsewhere leaves nothing half-done.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends what callers want of one stream, batch after batch, until there are no requests.
async fn work_off<A: Append>(
    append: Arc<A>,
    queues: Arc<Queues>,
    stream: StreamName,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut waiting = Vec::with_capacity(QUEUE);
    loop {
        let received = requests.recv_many(&mut waiting, QUEUE);
        if let Ok(count) = tokio::time::timeout(LINGER, received).await {
            if count == 0 {
                return;
            }
        } else if is_done(&queues, &stream, &requests) {
            return;
        }
        // Their callers have gone, and nothing of them has been sent.
        waiting.retain(|request| !request.reply.is_closed());
        let mut waiting = waiting.drain(..).peekable();
        while let Some(first) = waiting.next() {
            let mut batch = Batch::new(first);
            while let Some(request) = waiting.next_if(|request| batch.has_room_for(request)) {
                batch.add(request);
            }
            batch.append(&*append, &stream).await;
        }
    }
}

/// Closes a stream's queue, unless a caller is about to use it.
fn is_done(queues: &Queues, stream: &StreamName, requests: &mpsc::Receiver<Request>) -> bool {
    let mut queues = lock(queues);
    // Senders are cloned under this lock: if the map has the only one, no caller is on the way.
    if requests.sender_strong_count() > 1 || !requests.is_empty() {
        return false;
    }
    // This task's own handle goes with it; aborting a task that returns next does nothing.
    queues.remove(stream);
    true
}

/// Requests of the same retention, one after the other.
struct Batch {
    messages: Vec<NewMessage>,
    bytes: usize,
    retention: Option<Retention>,
    callers: Vec<Caller>,
}

/// Who waits for which of a batch's messages.
struct Caller {
    messages: Range<usize>,
    reply: oneshot::Sender<Result<Vec<MessageId>, Error>>,
}

impl Batch {
    fn new(first: Request) -> Self {
        let mut batch = Self {
            messages: Vec::new(),
            bytes: 0,
            retention: first.retention,
            callers: Vec::new(),
        };
        batch.add(first);
        batch
    }

    fn has_room_for(&self, request: &Request) -> bool {
        self.retention == request.retention
            && self.messages.len() + request.messages.len() <= MAX_MESSAGES
            && self.bytes + bytes(&request.messages) <= MAX_BYTES
    }

    fn add(&mut self, request: Request) {
        self.bytes += bytes(&request.messages);
        let start = self.messages.len();
        if start == 0 {
            // The usual caller is alone, and its messages need not be moved.
            self.messages = request.messages;
        } else {
            self.messages.extend(request.messages);
        }
        self.callers.push(Caller {
            messages: start..self.messages.len(),
            reply: request.reply,
        });
    }

    async fn append(self, append: &impl Append, stream: &StreamName) {
        let appended = append.append(stream, &self.messages, self.retention).await;
        match appended {
            Ok(ids) => {
                for caller in self.callers {
                    let own = ids.get(caller.messages.clone()).map(<[_]>::to_vec);
                    caller.reply(own.ok_or_else(|| Error::backend(TooFewIds)));
                }
            }
            // Nothing of it is in the store: each caller gets the error of its own messages.
            Err(AppendError::Refused(_)) if self.callers.len() > 1 => {
                for caller in self.callers {
                    let own = self.messages.get(caller.messages.clone());
                    let own = own.unwrap_or_default();
                    let appended = append.append(stream, own, self.retention).await;
                    caller.reply(appended.map_err(Error::from));
                }
            }
            Err(error) => {
                let error = Error::from(error);
                for caller in self.callers {
                    caller.reply(Err(error.clone()));
                }
            }
        }
    }
}

impl Caller {
    fn reply(self, result: Result<Vec<MessageId>, Error>) {
        // An error means that the caller has dropped its future.
        drop(self.reply.send(result));
    }
}

fn bytes(messages: &[NewMessage]) -> usize {
    messages.iter().map(|message| message.payload.len()).sum()
}

/// A store that returned fewer ids than there are messages.
#[derive(Debug, thiserror::Error)]
#[error("the store returned too few ids for its messages")]
struct TooFewIds;

#[cfg(test)]
mod tests;
