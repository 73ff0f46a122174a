use tidings_notify::EventType;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::room::Room;
use crate::{Attempt, DeliveryError, DeliveryErrorCause, EndpointId, Message, telemetry};

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

pub(crate) type Reply = oneshot::Sender<Result<Receipt, DeliveryError>>;

/// A message on its way.
///
/// Many of them may wait, so that its size matters: with its message's id, and without the body, it
/// takes less than 256 bytes.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) message: Message,
    pub(super) attempts: Vec<Attempt>,
    pub(super) accepted_at: Instant,
    /// Its place in the queue.
    pub(super) room: Option<Room>,
    /// Who waits for the outcome. Without one, failures go to the error callback.
    pub(super) reply: Option<Reply>,
    /// Nothing when nobody traces.
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
    pub(super) fn new(
        endpoint: &EndpointId,
        message: Message,
        room: Room,
        reply: Option<Reply>,
    ) -> Box<Self> {
        let span = tracing::debug_span!(
            "delivery",
            { telemetry::ENDPOINT_ID } = endpoint.as_traced(),
            { telemetry::MESSAGE_ID } = message.id(),
            { telemetry::MESSAGE_TYPE } = message.event_type().map(EventType::as_str),
        );
        Box::new(Self {
            message,
            attempts: Vec::new(),
            accepted_at: Instant::now(),
            room: Some(room),
            reply,
            span: (!span.is_disabled()).then(|| Box::new(span)),
        })
    }

    /// The number of the attempt that comes next.
    pub(super) fn next_attempt(&self) -> u32 {
        let made = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        self.message.first_attempt().get().saturating_add(made)
    }

    pub(super) fn span(&self) -> Span {
        self.span.as_deref().map_or_else(Span::none, Span::clone)
    }

    /// Why it failed, going by the last attempt; `None` when there was none.
    pub(super) fn last_failure(&self) -> Option<DeliveryErrorCause> {
        Some(match &self.attempts.last()?.result {
            Ok(answer) => DeliveryErrorCause::Status(answer.status),
            Err(error) => DeliveryErrorCause::Transport(error.clone()),
        })
    }
}
