mod history;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::moment::Moment;
use super::permits::QueuePermit;
use super::reply::Reply;
use crate::telemetry::{self, Span};
use crate::{Attempt, DeliveryErrorCause, Message};
use history::History;

/// A message on its way.
///
/// Many of them may wait, so that its size matters: see "Memory" of [`Message`].
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(super) message: Message,
    /// The attempts after which it had to wait.
    earlier: History,
    pub(super) accepted_at: Moment,
    /// When its next attempt is due, once it had to wait.
    pub(super) due: Moment,
    /// Its place in the queue.
    pub(super) permit: Option<QueuePermit>,
    /// Nothing for most deliveries.
    observers: Option<Box<Observers>>,
}

/// Who follows a delivery.
#[derive(Debug)]
struct Observers {
    /// The caller that waits for the outcome. Without one, the outcome goes to a callback.
    reply: Option<Reply>,
    span: Span,
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
        let make_span = || {
            tracing::debug_span!(
                "delivery",
                // The only endpoint of a client has no name.
                { telemetry::ENDPOINT_ID } = (!endpoint.is_empty()).then_some(endpoint),
                { telemetry::MESSAGE_ID } = message.id(),
                { telemetry::MESSAGE_TYPE } = message.event_type(),
            )
        };
        let span = Span::new(make_span);
        let is_observed = reply.is_some() || !span.is_none();
        let now = Moment::now();
        Box::new(Self {
            message,
            earlier: History::default(),
            accepted_at: now,
            due: now,
            permit: Some(permit),
            observers: is_observed.then(|| Box::new(Observers { reply, span })),
        })
    }

    pub(super) fn span(&self) -> Span {
        let span = self.observers.as_ref().map(|it| it.span.clone());
        span.unwrap_or(Span::none())
    }

    /// Whether a caller waits for the outcome, or has waited for it.
    fn has_caller(&self) -> bool {
        let observers = self.observers.as_ref();
        observers.is_some_and(|observers| observers.reply.is_some())
    }

    /// Takes out the caller that waits for the outcome.
    pub(super) fn take_reply(&mut self) -> Option<Reply> {
        self.observers.as_mut()?.reply.take()
    }

    /// The number of the attempt that comes next.
    pub(super) fn next_attempt(&self) -> u32 {
        let first = self.message.first_attempt().get();
        first.saturating_add(self.earlier.len())
    }

    /// Whether it had to wait after an attempt.
    pub(super) fn has_waited(&self) -> bool {
        self.earlier.len() > 0
    }

    /// How many attempts it took, with the one that has just ended.
    pub(super) fn attempt_count(&self) -> u32 {
        self.earlier.len().saturating_add(1)
    }

    pub(super) fn age(&self) -> Duration {
        self.age_at(Instant::now())
    }

    pub(super) fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.accepted_at.into())
    }

    /// Keeps in short an attempt that ended now, and after which it has to wait.
    pub(super) fn keep(&mut self, attempt: &Attempt, now: Instant) {
        let began_after = self.age_at(now).saturating_sub(attempt.elapsed);
        self.earlier.push(attempt, began_after, self.has_caller());
    }

    /// Why the last attempt before it waited failed.
    pub(super) fn last_failure(&self) -> Option<DeliveryErrorCause> {
        self.earlier.last_failure()
    }

    /// The attempts that were made before the last one, as far as they are kept.
    pub(super) fn earlier_attempts(&self) -> Vec<Attempt> {
        if !self.has_waited() {
            // Most deliveries: no clock is asked.
            return Vec::new();
        }
        let now = Timestamp::now();
        let accepted_at = now.saturating_sub(self.age()).unwrap_or(now);
        (self.earlier).attempts(self.message.first_attempt(), accepted_at)
    }
}

/// Why an attempt failed, as the cause of the end of its delivery.
pub(super) fn cause_of(attempt: &Attempt) -> DeliveryErrorCause {
    match &attempt.result {
        Ok(response) => DeliveryErrorCause::Status(response.status),
        Err(error) => DeliveryErrorCause::Transport(error.clone()),
    }
}
