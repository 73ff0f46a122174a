//! What each route says about itself: see [`Operation`](super::operation::Operation).

pub(super) mod bins;
pub(super) mod deliveries;
pub(super) mod endpoints;
pub(super) mod inbox;
pub(super) mod keys;
pub(super) mod metrics;
pub(super) mod notifications;
pub(super) mod open;
pub(super) mod presence;
pub(super) mod streams;
pub(super) mod unversioned;

use serde_json::{Value, json};

/// A notification, for examples.
fn notification() -> Value {
    json!({
        "id": "6f1c0a52d3e84b97-17",
        "user_id": "anna",
        "type": "greeting",
        "payload": { "text": "Hello" },
        "timestamp": "2026-11-21T10:00:00Z",
        "read_at": null,
        "archived_at": null,
        "key": null,
    })
}

/// The `limit` of a list.
fn limit(default: usize, most: usize) -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": most, "default": default })
}
