use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::task::AbortOnDropHandle;

use crate::subscription::Inbox;
use crate::{Received, Topics};

/// A handler that is called with the messages of some topics and patterns, in a task of its own.
///
/// Made by [`Subscription::handle`](crate::Subscription::handle). Dropping it unsubscribes at once
/// and ends a call that is running where it awaits; [`stop`](Self::stop) lets it finish.
#[must_use = "a listener ends when it is dropped"]
pub struct Listener {
    topics: Topics,
    inbox: Inbox,
    task: AbortOnDropHandle<()>,
}

impl Listener {
    pub(crate) fn start<H, F>(topics: Topics, inbox: Inbox, handler: H) -> Self
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let read = Inbox(inbox.0.clone());
        Self {
            topics,
            inbox,
            task: AbortOnDropHandle::new(tokio::spawn(call(handler, read))),
        }
    }

    /// Its topics and patterns, to be changed while it lives.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Unsubscribes, calls the handler with everything that is in the mailbox, and waits until the last
    /// call has returned.
    ///
    /// The handler must not call it: it would wait for its own end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the listener.
    pub async fn stop(self) {
        drop(self.topics);
        self.inbox.0.close();
        // The task catches the handler's panics, and only a drop of the listener aborts it.
        let _ended = self.task.await;
    }
}

/// Calls the handler until the mailbox is closed and empty.
async fn call<H, F>(mut handler: H, mut inbox: Inbox)
where
    H: FnMut(Received) -> F + Send,
    F: Future<Output = ()> + Send,
{
    while let Some(received) = inbox.recv().await {
        // After a panic the handler must restore what it shares with others, as in a task of its own.
        let called = AssertUnwindSafe(async { handler(received).await });
        if called.catch_unwind().await.is_err() {
            tracing::error!("a message handler panicked");
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("mailbox", &self.inbox.0)
            .finish_non_exhaustive()
    }
}
