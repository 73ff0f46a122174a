//! Carrying an event to another instance, ahead of its next sweep.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Event;

/// Where a user's connection is: which instance holds it, and how to reach that instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingInfo {
    /// The instance that holds the connection.
    #[serde(default)]
    pub instance_id: String,
    /// Whatever a router needs to reach it, for instance an address.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Forwards events to the instance that holds a user's connection.
///
/// # Contract
///
/// The event is already in the store when it is routed. Routing only makes its way shorter: after
/// an error, or a loss that nobody noticed, the other instance finds it in its next sweep. A router
/// may deliver an event twice or out of order; streams deliver by id, once and in order.
///
/// A dropped future may or may not have reached the other instance.
pub trait Router: Send + Sync + 'static {
    /// Delivers one event to one instance.
    fn route(
        &self,
        to: &RoutingInfo,
        event: &Event,
    ) -> impl Future<Output = Result<(), RouteError>> + Send;
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

/// Any [`Router`], behind one type.
#[derive(Clone)]
pub struct DynRouter(Arc<dyn ErasedRouter>);

impl DynRouter {
    /// Hides the type of a router.
    pub fn new(router: impl Router) -> Self {
        Self(Arc::new(router))
    }
}

impl fmt::Debug for DynRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynRouter")
    }
}

impl Router for DynRouter {
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        self.0.route_boxed(to, event).await
    }
}

trait ErasedRouter: Send + Sync {
    fn route_boxed<'a>(
        &'a self,
        to: &'a RoutingInfo,
        event: &'a Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), RouteError>> + Send + 'a>>;
}

impl<R: Router> ErasedRouter for R {
    fn route_boxed<'a>(
        &'a self,
        to: &'a RoutingInfo,
        event: &'a Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), RouteError>> + Send + 'a>> {
        Box::pin(self.route(to, event))
    }
}
