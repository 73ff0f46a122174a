use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Pool;
use super::delivery::{Delivery, Failure, Receipt};
use crate::circuit_breaker::CircuitState;
use crate::{Attempt, DeliveryError, DeliveryErrorCause, EndpointId, Message, telemetry};

pub(crate) type OnAttempt = Box<dyn Fn(&EndpointId, &Message, &Attempt) + Send + Sync>;
pub(crate) type OnDelivered = Box<dyn Fn(&EndpointId, Receipt) + Send + Sync>;
pub(crate) type OnError = Box<dyn Fn(&EndpointId, DeliveryError) + Send + Sync>;
pub(crate) type OnGone = Box<dyn Fn(&EndpointId) + Send + Sync>;
pub(crate) type OnCircuitChange = Box<dyn Fn(&EndpointId, CircuitState) + Send + Sync>;

/// The functions of the caller that are called with what happens. None is called under a lock.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) attempt: Option<OnAttempt>,
    pub(crate) delivered: Option<OnDelivered>,
    pub(crate) error: Option<OnError>,
    pub(crate) gone: Option<OnGone>,
    pub(crate) circuit_change: Option<OnCircuitChange>,
}

impl Pool {
    /// Reports an attempt, before its outcome is decided.
    pub(super) fn attempted(&self, id: &EndpointId, message: &Message, attempt: &Attempt) {
        if let Some(on_attempt) = &self.callbacks.attempt {
            call("on_attempt", || on_attempt(id, message, attempt));
        }
    }

    /// Reports a delivery that succeeded.
    pub(super) fn delivered(&self, id: &EndpointId, delivery: Delivery) {
        telemetry::delivered(delivery.accepted_at.elapsed(), delivery.attempts.len());
        drop(delivery.room);
        let receipt = Receipt {
            message: delivery.message,
            attempts: delivery.attempts,
        };
        // A caller of `deliver` that no longer waits leaves the receipt to the callback.
        let unclaimed = match delivery.reply {
            Some(reply) => reply.send(Ok(receipt)).err().and_then(Result::ok),
            None => Some(receipt),
        };
        if let (Some(on_delivered), Some(receipt)) = (&self.callbacks.delivered, unclaimed) {
            call("on_delivered", || on_delivered(id, receipt));
        }
    }

    /// Reports a delivery that failed for good.
    pub(super) fn fail(&self, id: &EndpointId, delivery: Delivery, failure: Failure) {
        self.end_as_failed(id, delivery, failure, false);
    }

    /// Reports a delivery that the end of the pool leaves without an outcome.
    pub(super) fn abandon(&self, id: &EndpointId, delivery: Delivery, was_interrupted: bool) {
        let abandoned = (id.clone(), delivery.message.clone());
        self.lock().abandoned.push(abandoned);
        let failure = DeliveryErrorCause::Abandoned.into();
        self.end_as_failed(id, delivery, failure, was_interrupted);
    }

    /// Reports that an endpoint is gone, and fails what waited for it.
    pub(super) fn fail_as_gone(&self, id: &EndpointId, delivery: Delivery, left: Vec<Delivery>) {
        if let Some(on_gone) = &self.callbacks.gone {
            call("on_gone", || on_gone(id));
        }
        if let Some(cause) = delivery.last_failure() {
            self.fail(id, delivery, cause.into());
        }
        for delivery in left {
            self.fail(id, delivery, DeliveryErrorCause::Gone.into());
        }
    }

    fn end_as_failed(
        &self,
        id: &EndpointId,
        delivery: Delivery,
        failure: Failure,
        was_interrupted: bool,
    ) {
        let span = delivery.span();
        let Delivery {
            message,
            attempts,
            accepted_at,
            reply,
            room,
            ..
        } = delivery;
        drop(room);
        telemetry::failed(&failure.cause, accepted_at.elapsed(), attempts.len());
        let mut error = DeliveryError::new(message, attempts, failure.cause)
            .with_blocked_until(failure.blocked_until);
        if was_interrupted {
            error = error.with_interrupted_attempt();
        }
        let unclaimed = match reply {
            Some(reply) => reply.send(Err(error)).err().and_then(Result::err),
            None => Some(error),
        };
        if let Some(error) = unclaimed {
            span.in_scope(|| self.report(id, error));
        }
    }

    fn report(&self, id: &EndpointId, error: DeliveryError) {
        if let Some(on_error) = &self.callbacks.error {
            call("on_error", || on_error(id, error));
        } else {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                cause = %error.cause(),
                "a message was not delivered"
            );
        }
    }

    /// Tells of circuits that have changed, in order, without holding the state meanwhile.
    pub(super) fn tell_circuits(&self) {
        let Some(tell) = &self.callbacks.circuit_change else {
            return;
        };
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_telling, true) {
            // Whoever is at it tells this as well.
            return;
        }
        while let Some((id, circuit)) = state.scheduler.next_circuit_change() {
            drop(state);
            call("on_circuit_change", || tell(&id, circuit));
            state = self.lock();
        }
        state.is_telling = false;
    }
}

/// Calls a function of the caller, which may panic.
fn call(name: &'static str, callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!(callback = name, "a callback panicked");
    }
}
