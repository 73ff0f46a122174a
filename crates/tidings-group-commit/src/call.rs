use tokio::sync::{mpsc, oneshot};

/// Where callers call. Clones share the queue.
#[derive(Debug)]
pub struct Queue<Q, R> {
    calls: mpsc::Sender<Call<Q, R>>,
}

/// A call that waits.
#[derive(Debug)]
pub struct Call<Q, R> {
    /// What the caller wants.
    pub request: Q,
    reply: Reply<R>,
}

/// Where a caller waits. Dropping it leaves the caller with [`NotDone::Taken`].
#[derive(Debug)]
pub struct Reply<R>(oneshot::Sender<R>);

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum NotDone<Q> {
    /// The task that took calls had ended, so this one was not begun. Here it is again.
    #[error("the task that takes calls has ended")]
    Untaken(Q),
    /// The task ended with the call in its hands, which may have been done.
    #[error("the task that took the call has ended")]
    Taken,
}

impl<Q, R> Queue<Q, R> {
    pub(crate) fn new(calls: mpsc::Sender<Call<Q, R>>) -> Self {
        Self { calls }
    }

    /// Calls, and returns the reply. Waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`NotDone`] when the task that takes calls ends.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have been done, entirely or not at all.
    pub async fn call(&self, request: Q) -> Result<R, NotDone<Q>> {
        let (reply, replied) = oneshot::channel();
        let reply = Reply(reply);
        let sent = self.calls.send(Call { request, reply }).await;
        sent.map_err(|unsent| NotDone::Untaken(unsent.0.request))?;
        replied.await.map_err(|_| NotDone::Taken)
    }

    /// Whether no task takes calls any more.
    pub fn is_closed(&self) -> bool {
        self.calls.is_closed()
    }
}

impl<Q, R> Clone for Queue<Q, R> {
    fn clone(&self) -> Self {
        Self::new(self.calls.clone())
    }
}

impl<Q, R> Call<Q, R> {
    /// Whether the caller has dropped its future.
    pub(crate) fn is_given_up(&self) -> bool {
        self.reply.0.is_closed()
    }

    /// Replies to the caller.
    pub fn reply(self, reply: R) {
        self.reply.send(reply);
    }

    /// What the caller wants, and where it waits.
    pub fn into_parts(self) -> (Q, Reply<R>) {
        (self.request, self.reply)
    }
}

impl<R> Reply<R> {
    /// Replies to the caller.
    pub fn send(self, reply: R) {
        // An error means that the caller has dropped its future.
        drop(self.0.send(reply));
    }
}
