//! Webhooks as the [`Router`] of a notifier.

mod instance;
mod receiver;
mod webhook;

use async_trait::async_trait;
use tidings_notify::{Event, RouteError, Router, RoutingInfo};

pub use instance::{InstanceRouter, InstanceRouterBuilder, URL_METADATA};
pub use receiver::{InstanceReceiver, ReceiveError};
pub use webhook::{BroadcastError, EventFilter, WebhookRouter};

use crate::{Client, Message};

/// Routes an event by one signed POST to the client's endpoint.
///
/// The result is `Ok` once the endpoint has accepted the event, after as many attempts as the
/// client's retry policy allows. To wait for less time, drop the future: the delivery continues, and
/// its outcome is reported to a callback. Where the event is headed does not matter: there is one
/// endpoint.
#[async_trait]
impl Router for Client {
    async fn route(&self, _to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        self.deliver(Message::from_event(event))
            .await
            .map(drop)
            .map_err(RouteError::new)
    }
}
