mod summary;

use tidings_notify::EventType;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::permits::QueuePermit;
use crate::{Attempt, DeliveryError, DeliveryErrorCause, Message, Receipt, telemetry};
use summary::AttemptSummary;

pub(crate) type Reply = oneshot::Sender<Result<Receipt, DeliveryError>>;

/// A message on its way.
///
/// Many of them may wait, so that its size matters: waiting for its second attempt it takes less
/// than 256 bytes beside the body, and 16 bytes for each attempt after that.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) message: Message,
    /// The attempts after which it had to wait.
    earlier: Box<[AttemptSummary]>,
    pub(super) accepted_at: Instant,
    /// Its place in the queue.
    pub(super) permit: Option<QueuePermit>,
    /// The caller that waits for the outcome. Without one, the outcome goes to a callback.
    pub(super) reply: Option<Reply>,
    /// Nothing when the span is disabled.
    span: Option<Box<Span>>,
}

/// Why a delivery ends without success, and until when its endpoint gets no requests.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) cause: DeliveryErrorCause,
    pub(super) blocked_until: Option<Instant>,
}

impl From<DeliveryErrorCause> for Failure {
    fn from(cause: DeliveryErrorCause) -> Self {
        Self {
            cause,
            blocked_until: None,
        }
    }
}

impl Delivery {
    /// Makes the span as well, so that it must not be called under a lock.
    pub(super) fn new(
        endpoint: &str,
        message: Message,
        permit: QueuePermit,
        reply: Option<Reply>,
    ) -> Box<Self> {
        let span = tracing::debug_span!(
            "delivery",
            // The only endpoint of a client has no name.
            { telemetry::ENDPOINT_ID } = (!endpoint.is_empty()).then_some(endpoint),
            { telemetry::MESSAGE_ID } = message.id(),
            { telemetry::MESSAGE_TYPE } = message.event_type().map(EventType::as_str),
        );
        Box::new(Self {
            message,
            earlier: Box::default(),
            accepted_at: Instant::now(),
            permit: Some(permit),
            reply,
            span: (!span.is_disabled()).then(|| Box::new(span)),
        })
    }

    pub(super) fn span(&self) -> Span {
        self.span.as_deref().map_or_else(Span::none, Span::clone)
    }

    /// The number of the attempt that comes next.
    pub(super) fn next_attempt(&self) -> u32 {
        self.number(self.earlier.len())
    }

    /// Keeps in short an attempt after which it has to wait.
    pub(super) fn keep(&mut self, attempt: &Attempt) {
        let mut earlier = std::mem::take(&mut self.earlier).into_vec();
        earlier.reserve_exact(1);
        earlier.push(AttemptSummary::new(attempt));
        self.earlier = earlier.into_boxed_slice();
    }

    /// Why the last attempt before it waited failed.
    pub(super) fn last_failure(&self) -> Option<DeliveryErrorCause> {
        self.earlier.last().map(AttemptSummary::cause)
    }

    /// The attempts that were made before the last one.
    pub(super) fn earlier_attempts(&self) -> Vec<Attempt> {
        let numbered = self.earlier.iter().enumerate();
        numbered
            .map(|(index, summary)| summary.attempt(self.number(index)))
            .collect()
    }

    fn number(&self, index: usize) -> u32 {
        let first = self.message.first_attempt().get();
        first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// Why an attempt failed, as the cause of the end of its delivery.
pub(super) fn cause_of(attempt: &Attempt) -> DeliveryErrorCause {
    match &attempt.result {
        Ok(response) => DeliveryErrorCause::Status(response.status),
        Err(error) => DeliveryErrorCause::Transport(error.clone()),
    }
}
