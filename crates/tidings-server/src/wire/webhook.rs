//! Webhook endpoints, and what was sent to them. The JSON of an endpoint, a delivery and an attempt is
//! that of `tidings-webhooks`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_webhooks::{DeliveryId, Endpoint, EndpointHealth};

/// How a secret is written, for errors about one.
pub(crate) const SECRET_RULE: &str = "a secret is `whsec_` and 24 to 64 bytes in base64";

/// How many deliveries a page has, unless the caller says otherwise, and at most.
pub(crate) const DEFAULT_PAGE: usize = 50;
pub(crate) const MAX_PAGE: usize = 500;

/// The response that creates an endpoint: the one place that shows its secret, besides a rotation.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CreatedEndpoint {
    #[serde(flatten)]
    pub(crate) endpoint: Endpoint,
    pub(crate) secret: String,
}

/// One endpoint with its health.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EndpointWithHealth {
    #[serde(flatten)]
    pub(crate) endpoint: Endpoint,
    pub(crate) health: EndpointHealth,
}

/// The secret after a rotation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RotatedSecret {
    pub(crate) secret: String,
}

/// What an endpoint is sent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SentMessage {
    /// The body of each request, byte by byte.
    pub(crate) body: String,
}

/// The delivery of a test event.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TestDelivery {
    pub(crate) delivery_id: DeliveryId,
}
