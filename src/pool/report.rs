use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Pool;
use super::delivery::{Delivery, Receipt};
use crate::circuit_breaker::CircuitState;
use crate::{DeliveryError, DeliveryErrorCause, EndpointId, telemetry};

pub(crate) type OnError = Box<dyn Fn(&EndpointId, DeliveryError) + Send + Sync>;
pub(crate) type OnGone = Box<dyn Fn(&EndpointId) + Send + Sync>;
pub(crate) type OnCircuitChange = Box<dyn Fn(&EndpointId, CircuitState) + Send + Sync>;

/// Who is told what happens.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) error: Option<OnError>,
    pub(crate) gone: Option<OnGone>,
    pub(crate) circuit_change: Option<OnCircuitChange>,
}

impl Pool {
    pub(super) fn fail(&self, id: &EndpointId, delivery: Delivery, cause: DeliveryErrorCause) {
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
        telemetry::failed(&cause, accepted_at.elapsed(), attempts.len());
        let error = DeliveryError::new(message, attempts, cause);
        let unheard = match reply {
            Some(reply) => reply.send(Err(error)).err().and_then(Result::err),
            None => Some(error),
        };
        if let Some(error) = unheard {
            span.in_scope(|| self.report(id, error));
        }
    }

    pub(super) fn abandon(&self, id: &EndpointId, delivery: Delivery) {
        let abandoned = (id.clone(), delivery.message.clone());
        self.lock().abandoned.push(abandoned);
        self.fail(id, delivery, DeliveryErrorCause::Abandoned);
    }

    fn report(&self, id: &EndpointId, error: DeliveryError) {
        let Some(on_error) = &self.callbacks.error else {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                cause = %error.cause(),
                "a message was not delivered"
            );
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| on_error(id, error))).is_err() {
            tracing::error!("the error callback panicked");
        }
    }

    /// Tells that an endpoint is gone, and fails what waited for it.
    pub(super) fn fail_as_gone(&self, id: &EndpointId, delivery: Delivery, left: Vec<Delivery>) {
        if let Some(on_gone) = &self.callbacks.gone
            && catch_unwind(AssertUnwindSafe(|| on_gone(id))).is_err()
        {
            tracing::error!("the callback for endpoints that are gone panicked");
        }
        if let Some(cause) = delivery.last_failure() {
            self.fail(id, delivery, cause);
        }
        for delivery in left {
            self.fail(id, delivery, DeliveryErrorCause::Gone);
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
            if catch_unwind(AssertUnwindSafe(|| tell(&id, circuit))).is_err() {
                tracing::error!("the callback for circuits panicked");
            }
            state = self.lock();
        }
        state.is_telling = false;
    }
}

pub(super) fn delivered(delivery: Delivery) {
    telemetry::delivered(delivery.accepted_at.elapsed(), delivery.attempts.len());
    let Some(reply) = delivery.reply else {
        return;
    };
    // Whoever asked may have gone: then nobody wants the receipt.
    drop(reply.send(Ok(Receipt {
        message: delivery.message,
        attempts: delivery.attempts,
    })));
}
