use axum::http::StatusCode;
use serde_json::json;
use tidings_notify::Event;

use super::notification;
use crate::http::notifications::{NewBatch, NewNotification};
use crate::http::operation::{Group, Operation};
use crate::wire::Data;
use crate::wire::code::Code;
use crate::wire::notification::Accepted;

pub(in crate::http) fn create() -> Operation {
    Operation::new(
        Group::Notifications,
        "createNotification",
        "Sends a notification to one user, or to many",
    )
    .description("It is stored, for all users or none, before the response. At most 16 MiB of payload over all users.")
    .takes::<NewNotification>(
        json!({ "user_id": "anna", "type": "greeting", "payload": { "text": "Hello" } }),
    )
    .replies::<Accepted>(StatusCode::CREATED, "The notification is stored.", notification())
    .fails_with(&[Code::TooManyNotifications])
    .repeatable()
}

pub(in crate::http) fn create_batch() -> Operation {
    Operation::new(
        Group::Notifications,
        "createNotifications",
        "Sends several notifications, all or none",
    )
    .takes::<NewBatch>(json!({ "notifications": [
        { "user_id": "anna", "message": "Hello" },
        { "user_ids": ["ben", "carla"], "type": "order.paid", "payload": { "order": 17 }, "key": "order-17" },
    ] }))
    .replies::<Data<Vec<Event>>>(
        StatusCode::CREATED,
        "All notifications are stored.",
        json!({ "data": [notification()] }),
    )
    .fails_with(&[Code::TooManyNotifications])
    .repeatable()
}
