//! The way of an outcome to the caller that waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Pool;
use crate::telemetry::Span;
use crate::{Delivered, DeliveryError, EndpointId, Message, Refusal};

/// The end of a delivery.
pub(crate) type Outcome = Result<Delivered, DeliveryError>;

/// Where the outcome of a delivery goes that has a caller.
#[derive(Debug)]
pub(crate) struct Reply(oneshot::Sender<Ended>);

/// Waits for an outcome. Dropped without it, it leaves the outcome to a callback, even if it has
/// arrived: the caller has not seen it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Awaited<'a> {
    pool: &'a Pool,
    message: Message,
    outcome: oneshot::Receiver<Ended>,
}

/// An outcome and what a callback needs beside it.
#[derive(Debug)]
struct Ended {
    id: EndpointId,
    outcome: Outcome,
    span: Span,
}

impl Reply {
    /// Hands an outcome over. Returns it if the caller no longer waits.
    pub(super) fn send(self, id: &EndpointId, outcome: Outcome, span: &Span) -> Option<Outcome> {
        let ended = Ended {
            id: id.clone(),
            outcome,
            span: span.clone(),
        };
        self.0.send(ended).err().map(|ended| ended.outcome)
    }
}

impl<'a> Awaited<'a> {
    pub(super) fn new(pool: &'a Pool, message: Message) -> (Reply, Self) {
        let (reply, outcome) = oneshot::channel();
        let awaited = Self {
            pool,
            message,
            outcome,
        };
        (Reply(reply), awaited)
    }
}

impl Future for Awaited<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let polled = Pin::new(&mut self.outcome).poll(context);
        polled.map(|ended| match ended {
            Ok(ended) => ended.outcome,
            // The pool drops no delivery without an outcome.
            Err(_) => Err(DeliveryError::refused(
                self.message.clone(),
                Refusal::Stopped,
            )),
        })
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // From here on the outcome is handed back to the worker that has it.
        self.outcome.close();
        if let Ok(Ended { id, outcome, span }) = self.outcome.try_recv() {
            self.pool.report(&id, outcome, &span);
        }
    }
}
