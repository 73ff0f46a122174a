use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use super::delivery::{Delivery, Failure, cause_of};
use super::reply::{Outcome, Reply};
use super::scheduler::CircuitChange;
use crate::circuit_breaker::CircuitState;
use crate::panics::{self, catch};
use crate::telemetry::{self, Span};
use crate::{Attempt, Delivered, DeliveryError, DeliveryErrorCause, Endpoint, EndpointId, Message};

pub(crate) type OnAttempt = Box<dyn Fn(&EndpointId, &Message, &Attempt) + Send + Sync>;
pub(crate) type OnDelivered = Box<dyn Fn(&EndpointId, Delivered) + Send + Sync>;
pub(crate) type OnError = Box<dyn Fn(&EndpointId, DeliveryError) + Send + Sync>;
pub(crate) type OnGone = Box<dyn Fn(&EndpointId) + Send + Sync>;
pub(crate) type OnCircuitChange = Box<dyn Fn(&EndpointId, CircuitState) + Send + Sync>;

/// The functions of the caller that are called with what happens.
///
/// They, the tracing layers and the recorder of metrics are the caller's code: none of them runs
/// under a lock, and a panic in one keeps nothing else from being reported.
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
    pub(super) fn attempted(
        &self,
        id: &EndpointId,
        message: &Message,
        attempt: &Attempt,
        span: &Span,
    ) {
        if let Some(on_attempt) = &self.callbacks.attempt {
            let on_attempt = || on_attempt(id, message, attempt);
            call("on_attempt", span, on_attempt);
        }
    }

    /// Reports a delivery that succeeded.
    pub(super) fn delivered(
        &self,
        id: &EndpointId,
        mut delivery: Delivery,
        last: Attempt,
        now: Instant,
    ) {
        let (span, reply) = (delivery.span(), delivery.take_reply());
        let (age, attempts) = (delivery.age_at(now), delivery.attempt_count());
        catch(|| telemetry::delivered(age, attempts));
        // Its place is free before anything is called that may want it.
        drop(delivery.permit.take());
        if reply.is_none() && self.callbacks.delivered.is_none() {
            // A `Delivered` would be made for nothing.
            return;
        }
        let mut attempts = delivery.earlier_attempts();
        attempts.push(last);
        let delivered = Delivered {
            message: delivery.message,
            attempts,
        };
        self.conclude(id, reply, Ok(delivered), &span);
    }

    /// Reports a delivery that failed for good, with the attempt that it failed with.
    pub(super) fn fail(
        &self,
        id: &EndpointId,
        delivery: Delivery,
        last: Option<Attempt>,
        failure: Failure,
    ) {
        let mut attempts = delivery.earlier_attempts();
        attempts.extend(last);
        self.end(id, delivery, |message| {
            DeliveryError::new(message, attempts, failure.cause)
                .with_blocked_until(failure.blocked_until)
        });
    }

    /// Reports a delivery that the end of the pool leaves without an outcome.
    pub(super) fn abandon(&self, id: &EndpointId, delivery: Delivery, was_interrupted: bool) {
        let abandoned = (id.clone(), delivery.message.clone());
        self.lock().abandoned.push(abandoned);
        let attempts = delivery.earlier_attempts();
        self.end(id, delivery, |message| {
            let error = DeliveryError::new(message, attempts, DeliveryErrorCause::Abandoned);
            if was_interrupted {
                error.with_interrupted_attempt()
            } else {
                error
            }
        });
    }

    /// Reports that an endpoint is gone, and fails what waited for it.
    pub(super) fn fail_as_gone(
        &self,
        id: &EndpointId,
        endpoint: &Endpoint,
        delivery: Delivery,
        last: Attempt,
        left: Vec<Delivery>,
    ) {
        catch(|| {
            telemetry::endpoint_gone();
            tracing::warn!(
                { telemetry::ENDPOINT_ID } = id.as_str(),
                { telemetry::SERVER_ADDRESS } = endpoint.url().host_str(),
                "the endpoint is gone, and gets no further messages"
            );
        });
        if let Some(on_gone) = &self.callbacks.gone {
            call("on_gone", &Span::none(), || on_gone(id));
        }
        let cause = cause_of(&last);
        self.fail(id, delivery, Some(last), cause.into());
        for delivery in left {
            self.fail(id, delivery, None, DeliveryErrorCause::Gone.into());
        }
    }

    /// Reports circuits that have changed, one at a time, which keeps them in order.
    pub(super) fn report_circuits(&self) {
        loop {
            let change = {
                let mut state = self.lock();
                if state.is_reporting_circuits {
                    // The thread that is at it reports this change as well.
                    return;
                }
                let change = state.scheduler.next_circuit_change();
                state.is_reporting_circuits = change.is_some();
                change
            };
            let Some(change) = change else {
                return;
            };
            catch(|| log_circuit(&change));
            if let Some(on_change) = &self.callbacks.circuit_change {
                let on_change = || on_change(&change.id, change.to);
                call("on_circuit_change", &Span::none(), on_change);
            }
            self.lock().is_reporting_circuits = false;
        }
    }

    fn end(
        &self,
        id: &EndpointId,
        mut delivery: Delivery,
        error: impl FnOnce(Message) -> DeliveryError,
    ) {
        let (span, reply) = (delivery.span(), delivery.take_reply());
        let age = delivery.age();
        drop(delivery.permit);
        let error = error(delivery.message);
        catch(|| telemetry::failed(error.cause(), age, error.attempt_count()));
        self.conclude(id, reply, Err(error), &span);
    }

    /// Hands an outcome to the caller that waits for it, and reports it if there is none.
    fn conclude(&self, id: &EndpointId, reply: Option<Reply>, outcome: Outcome, span: &Span) {
        let unclaimed = match reply {
            Some(reply) => reply.send(id, outcome, span),
            None => Some(outcome),
        };
        if let Some(outcome) = unclaimed {
            self.report(id, outcome, span);
        }
    }

    /// Reports an outcome that no caller has seen.
    pub(crate) fn report(&self, id: &EndpointId, outcome: Outcome, span: &Span) {
        match outcome {
            Ok(delivered) => {
                if let Some(on_delivered) = &self.callbacks.delivered {
                    call("on_delivered", span, || on_delivered(id, delivered));
                }
            }
            Err(error) => {
                if let Some(on_error) = &self.callbacks.error {
                    call("on_error", span, || on_error(id, error));
                } else {
                    catch(|| span.in_scope(|| log_failure(id, &error)));
                }
            }
        }
    }
}

/// Reports that an endpoint has asked for no requests for a long time.
pub(super) fn paused(id: &EndpointId, endpoint: &Endpoint, asked: Duration) {
    catch(|| {
        telemetry::endpoint_paused();
        tracing::warn!(
            { telemetry::ENDPOINT_ID } = name(id),
            { telemetry::SERVER_ADDRESS } = endpoint.url().host_str(),
            retry_after_s = asked.as_secs(),
            "the endpoint asks for no requests for a while, and gets none"
        );
    });
}

/// Calls a function of the caller within a span.
fn call(name: &'static str, span: &Span, callback: impl FnOnce()) {
    if catch(|| span.in_scope(callback)).is_none() {
        panics::log(name);
    }
}

/// The only endpoint of a client has no name.
fn name(id: &EndpointId) -> Option<&str> {
    Some(id.as_str()).filter(|id| !id.is_empty())
}

fn log_failure(id: &EndpointId, error: &DeliveryError) {
    tracing::warn!(
        { telemetry::ENDPOINT_ID } = name(id),
        error = error as &dyn std::error::Error,
        "a message was not delivered"
    );
}

fn log_circuit(change: &CircuitChange) {
    telemetry::circuit_changed(change.to);
    let id = name(&change.id);
    match (change.from, change.to) {
        _ if change.by_hand => {}
        (CircuitState::Closed, CircuitState::Open) => tracing::warn!(
            { telemetry::ENDPOINT_ID } = id,
            { telemetry::SERVER_ADDRESS } = &*change.host,
            "the circuit opened: the endpoint is failing"
        ),
        (_, CircuitState::Closed) => tracing::info!(
            { telemetry::ENDPOINT_ID } = id,
            { telemetry::SERVER_ADDRESS } = &*change.host,
            "the circuit closed: the endpoint has recovered"
        ),
        _ => {}
    }
}
