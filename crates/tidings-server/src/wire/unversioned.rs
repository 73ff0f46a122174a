//! The shape of the four unversioned routes.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_notify::{Event, EventId, UserId};

/// A notification as the unversioned routes show it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(crate) struct Notification<'a> {
    id: EventId,
    user_id: &'a UserId,
    message: String,
    created_at: Timestamp,
    read: bool,
}

impl<'a> From<&'a Event> for Notification<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id,
            user_id: &event.user,
            message: message_of(event),
            created_at: event.timestamp,
            read: event.read_at.is_some(),
        }
    }
}

/// The message of an event: the payload's `message`, or a payload that is text, or else its JSON.
fn message_of(event: &Event) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Readable {
        Text(String),
        Object { message: String },
    }
    match serde_json::from_str(event.payload.as_str()) {
        Ok(Readable::Text(message) | Readable::Object { message }) => message,
        Err(_) => event.payload.as_str().to_owned(),
    }
}
