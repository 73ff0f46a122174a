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
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tidings_group_commit::{Call, NotDone, Queue, Request};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, MessageId, NewMessage, Result, Retention, StreamName};

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

/// Something that leaves it open what happened.
impl From<Error> for AppendError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(error) | AppendError::Failed(error) => error,
        }
    }
}

/// The queues of one engine. Dropping it ends its tasks.
#[derive(Debug)]
pub(crate) struct GroupCommit<A> {
    append: Arc<A>,
    queues: Arc<Queues>,
}

/// The queues of the streams that were published to lately.
type Queues = Mutex<HashMap<StreamName, StreamQueue>>;

#[derive(Debug)]
struct StreamQueue {
    queue: Queue<Messages, Appended>,
    _task: AbortOnDropHandle<()>,
}

/// What one caller wants to append.
#[derive(Debug)]
struct Messages {
    messages: Vec<NewMessage>,
    retention: Option<Retention>,
}

/// The ids of a caller's messages.
type Appended = Result<Vec<MessageId>>;

/// The calls that wait for a stream.
type Calls = tidings_group_commit::Calls<Messages, Appended>;

impl Request for Messages {
    fn items(&self) -> usize {
        self.messages.len()
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(NewMessage::bytes).sum()
    }

    fn fits(&self, earlier: &Self) -> bool {
        self.retention == earlier.retention
    }
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
    ) -> Result<Vec<MessageId>> {
        let mut request = Messages {
            messages,
            retention,
        };
        loop {
            let queue = self.queue(stream);
            match queue.call(request).await {
                Ok(appended) => return appended,
                // Its runtime has ended, and what it has not taken is for the next.
                Err(NotDone::Untaken(again)) => request = again,
                Err(taken @ NotDone::Taken) => return Err(Error::outcome_unknown(taken)),
            }
        }
    }

    fn queue(&self, stream: &StreamName) -> Queue<Messages, Appended> {
        let mut queues = self.queues.lock();
        // A task whose runtime has ended is gone without having said so.
        if let Some(existing) = queues.get(stream)
            && !existing.queue.is_closed()
        {
            return existing.queue.clone();
        }
        let (queue, calls) = tidings_group_commit::queue();
        let work = work_off(
            Arc::clone(&self.append),
            Arc::clone(&self.queues),
            stream.clone(),
            calls,
        );
        let entry = StreamQueue {
            queue: queue.clone(),
            _task: AbortOnDropHandle::new(tokio::spawn(work.boxed())),
        };
        queues.insert(stream.clone(), entry);
        queue
    }
}

impl<A> Drop for GroupCommit<A> {
    fn drop(&mut self) {
        // The tasks know the map that holds their handles.
        let queues = std::mem::take(&mut *self.queues.lock());
        drop(queues);
    }
}

/// Appends what callers want of one stream, batch after batch, until no caller comes any more.
async fn work_off<A: Append>(
    append: Arc<A>,
    queues: Arc<Queues>,
    stream: StreamName,
    mut calls: Calls,
) {
    loop {
        if let Ok(has_calls) = tokio::time::timeout(LINGER, calls.wait()).await {
            if !has_calls {
                return;
            }
        } else if is_done(&queues, &stream, &calls) {
            return;
        }
        while let Some(calls) = calls.next_batch() {
            append_all(&*append, &stream, calls).await;
        }
    }
}

/// Closes a stream's queue, unless a caller is about to use it.
fn is_done(queues: &Queues, stream: &StreamName, calls: &Calls) -> bool {
    let mut queues = queues.lock();
    // Queues are cloned under this lock: if the map has the only one, no caller is on the way.
    if calls.is_used() {
        return false;
    }
    // This task's own handle goes with it; aborting a task that returns next does nothing.
    queues.remove(stream);
    true
}

/// Appends the messages of callers with the same retention, one after the other.
async fn append_all<A: Append>(
    append: &A,
    stream: &StreamName,
    calls: Vec<Call<Messages, Appended>>,
) {
    let retention = calls.first().and_then(|call| call.request.retention);
    let mut messages = Vec::new();
    // Who waits for how many of them.
    let mut callers = Vec::with_capacity(calls.len());
    for call in calls {
        let (request, reply) = call.into_parts();
        callers.push((request.messages.len(), reply));
        if messages.is_empty() {
            // The usual caller is alone, and its messages need not be moved.
            messages = request.messages;
        } else {
            messages.extend(request.messages);
        }
    }
    match append.append(stream, &messages, retention).await {
        Ok(ids) => {
            let mut ids = ids.into_iter();
            for (count, reply) in callers {
                let own: Vec<_> = ids.by_ref().take(count).collect();
                let is_whole = own.len() == count;
                reply.send(
                    is_whole
                        .then_some(own)
                        .ok_or_else(|| Error::outcome_unknown(TooFewIds)),
                );
            }
        }
        // Nothing of it is in the store: each caller gets the error of its own messages.
        Err(AppendError::Refused(_)) if callers.len() > 1 => {
            let mut rest = messages.as_slice();
            for (count, reply) in callers {
                let (own, others) = rest.split_at(count);
                rest = others;
                let appended = append.append(stream, own, retention).await;
                reply.send(appended.map_err(Error::from));
            }
        }
        Err(error) => {
            let error = Error::from(error);
            for (_, reply) in callers {
                reply.send(Err(error.clone()));
            }
        }
    }
}

/// A store that returned fewer ids than there are messages, which it has appended.
#[derive(Debug, thiserror::Error)]
#[error("the store returned too few ids for its messages")]
struct TooFewIds;

#[cfg(test)]
mod tests;
