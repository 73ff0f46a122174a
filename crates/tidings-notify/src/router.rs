//! Sending an event to another instance, before its next sweep finds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Event;

/// Where a user's connection is: which instance holds it, and how to reach that instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingInfo {
    /// The instance that holds the connection.
    #[serde(default)]
    pub instance_id: String,
    /// What a router needs to reach it, for instance an address.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Forwards events to the instance that holds a user's connection. Used as `Arc<dyn Router>`.
///
/// # Contract
///
/// The event is already in the store when it is routed. Routing only makes delivery faster: after
/// an error, or a loss that was not noticed, the other instance finds the event in its next sweep. A
/// router may deliver an event twice or out of order; streams give events by id, once and in order.
///
/// If the future is dropped, the event may or may not have reached the other instance.
#[async_trait]
pub trait Router: fmt::Debug + Send + Sync + 'static {
    /// Delivers one event to one instance.
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError>;
}

#[async_trait]
impl<R: Router + ?Sized> Router for Arc<R> {
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        (**self).route(to, event).await
    }
}

/// A router failed to hand over an event.
#[derive(Debug, thiserror::Error)]
#[error("the event was not routed")]
pub struct RouteError {
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl RouteError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}
