use axum::http::StatusCode;
use serde_json::{Value, json};
use tidings_notify::wire::Counts;
use tidings_notify::{DEFAULT_INBOX_LIMIT, EventId, MAX_INBOX_LIMIT, MAX_NAME_BYTES};

use super::{limit, notification};
use crate::http::extract::NoFields;
use crate::http::inbox::UpTo;
use crate::http::operation::{Group, Operation};
use crate::wire::notification::Inbox;

fn counts() -> Value {
    json!({ "unread": 2, "unseen": 1, "cursor": "6f1c0a52d3e84b97-17" })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

pub(in crate::http) fn list() -> Operation {
    Operation::new(
        Group::Inbox,
        "listNotifications",
        "Lists the inbox, newest first",
    )
    .description("A page of large payloads ends before its limit.")
    .query(
        "limit",
        limit(DEFAULT_INBOX_LIMIT, MAX_INBOX_LIMIT),
        "Most notifications of the page.",
    )
    .query(
        "cursor",
        json!({ "$ref": "#/components/schemas/EventId" }),
        "The `next` of the page before.",
    )
    .query("unread", boolean(), "With `true`, only what is unread.")
    .query(
        "archived",
        boolean(),
        "With `true`, what is archived instead of what is not.",
    )
    .query(
        "type",
        json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES }),
        "Only notifications of this type.",
    )
    .replies::<Inbox>(
        StatusCode::OK,
        "A page of the inbox.",
        json!({
            "data": [notification()],
            "next": null,
            "unread": 2,
            "unseen": 1,
            "cursor": "6f1c0a52d3e84b97-17",
        }),
    )
}

pub(in crate::http) fn unread_count() -> Operation {
    Operation::new(
        Group::Inbox,
        "countUnread",
        "Counts what is unread and unseen",
    )
    .replies::<Counts>(StatusCode::OK, "The counts of the whole inbox.", counts())
}

pub(in crate::http) fn read_all() -> Operation {
    up_to(
        "readAll",
        "Marks all notifications as read, or all up to one",
    )
}

pub(in crate::http) fn seen() -> Operation {
    up_to(
        "markSeen",
        "Marks all notifications as seen, or all up to one",
    )
}

fn up_to(name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Group::Inbox, name, summary)
        .may_take::<UpTo>(json!({ "up_to": "6f1c0a52d3e84b97-17" }))
        .replies::<Counts>(StatusCode::OK, "The counts afterwards.", counts())
}

/// `POST …/{id}/{action}`.
pub(in crate::http) fn on_one(action: &str) -> Operation {
    let (name, summary) = match action {
        "read" => ("markRead", "Marks a notification as read"),
        "unread" => ("markUnread", "Marks a notification as unread again"),
        "archive" => (
            "archive",
            "Takes a notification out of the inbox and its counts",
        ),
        _ => ("unarchive", "Puts a notification back into the inbox"),
    };
    Operation::new(Group::Inbox, name, summary)
        .of::<EventId>()
        .may_take::<NoFields>(json!({}))
        .replies::<Counts>(StatusCode::OK, "The counts afterwards.", counts())
}
