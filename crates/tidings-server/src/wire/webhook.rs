//! Webhook endpoints, and what was sent to them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tidings_notify::EventType;

use crate::deliveries;
use crate::endpoints;

/// An endpoint. `secret` is there only in the response that creates it.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    id: String,
    user_id: Option<String>,
    url: String,
    /// Empty: every type.
    event_types: Vec<EventType>,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_because: Option<String>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Endpoint {
    /// The response to the request that created the endpoint: the one place that shows its secret.
    pub(crate) fn with_secret(endpoint: endpoints::Endpoint) -> Self {
        let secret = endpoint.secret.expose().as_str().to_owned();
        Self {
            secret: Some(secret),
            ..endpoint.into()
        }
    }
}

impl From<endpoints::Endpoint> for Endpoint {
    fn from(endpoint: endpoints::Endpoint) -> Self {
        Self {
            id: endpoint.id,
            user_id: endpoint.user_id,
            url: endpoint.url,
            event_types: endpoint.event_types,
            enabled: endpoint.disabled_because.is_none(),
            disabled_because: endpoint.disabled_because,
            created_at: endpoint.created_at,
            secret: None,
        }
    }
}

/// One message to one endpoint, until its final outcome.
#[derive(Debug, Serialize)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    /// What the receiver sees as `webhook-id`: the event's id.
    message_id: String,
    #[serde(rename = "type")]
    message_type: String,
    endpoint_id: String,
    state: &'static str,
    attempts: u32,
    next_attempt_at: Option<Timestamp>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// Why the delivery ended without another attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<deliveries::Delivery> for Delivery {
    fn from(delivery: deliveries::Delivery) -> Self {
        Self {
            id: delivery.id,
            message_id: delivery.message_id,
            message_type: delivery.message_type,
            endpoint_id: delivery.endpoint_id,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_attempt_at,
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
            reason: delivery.reason,
        }
    }
}

/// One request of a delivery.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    number: u32,
    started_at: Timestamp,
    #[serde(rename = "duration_ms", serialize_with = "as_milliseconds")]
    duration: Duration,
    status: Option<u16>,
    error: Option<String>,
    /// The head of the response body, as text.
    response: String,
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1000.0)
}

impl From<deliveries::AttemptRecord> for Attempt {
    fn from(attempt: deliveries::AttemptRecord) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            duration: attempt.duration,
            status: attempt.status,
            error: attempt.error,
            response: attempt.response,
        }
    }
}
