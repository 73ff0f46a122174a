//! Notifications and the inbox. The JSON of one notification is that of [`Event`].

use schemars::JsonSchema;
use serde::Serialize;
use tidings_notify::wire::Counts;
use tidings_notify::{Event, EventId};

use super::Data;

/// Maximum number of payload bytes that one request may store, over all its recipients: the request
/// is one transaction, and every other request waits for it.
pub(crate) const MAX_STORED_BYTES: usize = 16 << 20;

/// Maximum size of a notification as JSON. What is around the payload (the id, the user, the type, the times, the key)
/// is much smaller than what is added here.
pub(crate) const MAX_NOTIFICATION_BYTES: usize = MAX_STORED_BYTES + (64 << 10);

/// What a request became: one notification, or a list of them if it names its users in `user_ids`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Accepted {
    One(Event),
    Many(Data<Vec<Event>>),
}

/// A page of the inbox, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Inbox {
    pub(crate) data: Vec<Event>,
    /// The `cursor` of the next page.
    pub(crate) next: Option<EventId>,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// The payload of a notification that was sent as `message`.
#[derive(Debug, Serialize)]
pub(crate) struct MessagePayload<M> {
    pub(crate) message: M,
}
