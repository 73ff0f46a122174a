use axum::http::StatusCode;
use serde_json::{Value, json};
use tidings_notify::EventId;

use crate::http::operation::{Group, Operation};
use crate::http::unversioned::UnversionedNew;
use crate::wire::code::Code;
use crate::wire::unversioned::Notification;

fn notification() -> Value {
    json!({
        "id": "6f1c0a52d3e84b97-17",
        "user_id": "anna",
        "message": "Hello",
        "created_at": "2026-11-21T10:00:00Z",
        "read": false,
    })
}

pub(in crate::http) fn create() -> Operation {
    Operation::new(
        Group::Unversioned,
        "createMessage",
        "Sends a message to a user",
    )
    .takes::<UnversionedNew>(json!({ "user_id": "anna", "message": "Hello" }))
    .replies::<Notification<'static>>(
        StatusCode::CREATED,
        "The message is stored.",
        notification(),
    )
    .fails_with(&[Code::TooManyNotifications])
    .repeatable()
}

pub(in crate::http) fn list() -> Operation {
    Operation::new(
        Group::Unversioned,
        "listMessages",
        "Lists everything that is kept, oldest first",
    )
    .replies::<Vec<Notification<'static>>>(StatusCode::OK, "The messages.", json!([notification()]))
    .fails_with(&[Code::NotFound])
}

pub(in crate::http) fn read() -> Operation {
    Operation::new(Group::Unversioned, "readMessage", "Marks a message as read")
        .of::<EventId>()
        .replies_nothing(StatusCode::OK, "The message is read.")
}

pub(in crate::http) fn socket() -> Operation {
    Operation::new(
        Group::Unversioned,
        "openMessageSocket",
        "Streams a user's messages over a WebSocket: first those that were not sent to any connection of the user",
    )
    .replies_nothing(StatusCode::SWITCHING_PROTOCOLS, "The WebSocket is open.")
    .fails_with(&[Code::UpgradeRequired])
}
