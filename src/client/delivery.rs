use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::Span;

use tidings_notify::EventType;

use crate::{Attempt, DeliveryError, DeliveryErrorCause, Message, telemetry};

/// A message that was delivered, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Receipt {
    /// The message.
    pub message: Message,
    /// Every attempt, in order; the last one succeeded. Of the answers to the others, the first
    /// kibibyte is kept.
    pub attempts: Vec<Attempt>,
}

pub(super) type Reply = oneshot::Sender<Result<Receipt, DeliveryError>>;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) attempts: Vec<Attempt>,
    pub(super) accepted_at: Instant,
    /// Its place in the queue.
    pub(super) room: Option<OwnedSemaphorePermit>,
    /// Who waits for the outcome. Without one, failures go to the error callback.
    pub(super) reply: Option<Reply>,
    pub(super) span: Span,
}

impl Delivery {
    pub(super) fn new(message: Message, room: OwnedSemaphorePermit, reply: Option<Reply>) -> Self {
        let span = tracing::debug_span!(
            "delivery",
            { telemetry::MESSAGE_ID } = message.id(),
            { telemetry::MESSAGE_TYPE } = message.event_type().map(EventType::as_str),
        );
        Self {
            message,
            attempts: Vec::new(),
            accepted_at: Instant::now(),
            room: Some(room),
            reply,
            span,
        }
    }

    /// Why it failed, going by the last attempt; `None` when there was none.
    pub(super) fn last_failure(&self) -> Option<DeliveryErrorCause> {
        Some(match &self.attempts.last()?.result {
            Ok(answer) => DeliveryErrorCause::Status(answer.status),
            Err(error) => DeliveryErrorCause::Transport(error.clone()),
        })
    }
}
