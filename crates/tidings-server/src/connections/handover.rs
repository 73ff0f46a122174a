//! Responses that go on outside of the HTTP library.
//!
//! The library keeps buffers and state for the next request, which cost a connection more than a silent stream
//! needs. So a stream that lasts leaves it: the library writes the head and the first bytes, and then the
//! connection is the stream's own.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::Notify;

use super::transport::Transport;
use super::unread::Unread;

/// Takes over the connection of a response.
type Rest = Box<dyn FnOnce(Transport, Unread) + Send>;

/// Where a response waits until everything before it is written.
#[derive(Default)]
pub(super) struct Handover {
    waiting: Mutex<Waiting>,
    is_ready: Notify,
}

#[derive(Default)]
struct Waiting {
    rest: Option<Rest>,
    is_flushed: bool,
}

impl fmt::Debug for Handover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handover").finish_non_exhaustive()
    }
}

impl Handover {
    /// Waits for a response that takes over the connection, until the library has written all bytes that it had.
    ///
    /// Cancel safe: a dropped call takes nothing.
    pub(super) async fn taken_over(&self) -> Rest {
        loop {
            if let Some(rest) = self.take() {
                return rest;
            }
            // A notice that comes before this waits is kept.
            self.is_ready.notified().await;
        }
    }

    /// The library has written all bytes that it had.
    pub(super) fn flushed(&self) {
        let mut waiting = self.waiting();
        if waiting.rest.is_some() && !waiting.is_flushed {
            waiting.is_flushed = true;
            drop(waiting);
            self.is_ready.notify_one();
        }
    }

    fn take(&self) -> Option<Rest> {
        let mut waiting = self.waiting();
        let is_flushed = waiting.is_flushed;
        waiting.rest.take_if(|_| is_flushed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that begins with some bytes, and goes on outside of the HTTP library.
pub(crate) struct Leaving {
    opening: Option<Bytes>,
    rest: Option<Rest>,
    /// Of the connection, which ends with it. The rest has a part in the connection, and may not keep it from ending.
    handover: Weak<Handover>,
}

impl Leaving {
    pub(super) fn new(opening: Bytes, handover: Weak<Handover>, rest: Rest) -> Self {
        Self {
            opening: Some(opening),
            rest: Some(rest),
            handover,
        }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = Infallible;

    /// Is asked for a second part when the library has buffered the first.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(opening) = self.opening.take() {
            return Poll::Ready(Some(Ok(Frame::data(opening))));
        }
        if let (Some(rest), Some(handover)) = (self.rest.take(), self.handover.upgrade()) {
            handover.waiting().rest = Some(rest);
        }
        // The library is dropped while it waits.
        Poll::Pending
    }
}
