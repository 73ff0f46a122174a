use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::cursor::OF_POLYFILLS;
use crate::http::operation::{Group, Operation};
use crate::wire::code::Code;

pub(in crate::http) fn events() -> Operation {
    let operation = start(Operation::new(
        Group::Streams,
        "streamEvents",
        "Streams a user's notifications as Server-Sent Events",
    ));
    let of_polyfills = OF_POLYFILLS.into_iter().fold(operation, |operation, name| {
        operation.query(
            name,
            cursor(),
            "The header Last-Event-ID, as libraries that stand in for `EventSource` send it.",
        )
    });
    of_polyfills
        .query(
            "event",
            json!({ "type": "string", "enum": ["message", "type"], "default": "message" }),
            "With `type`, each notification is named by its type.",
        )
        .replies_text(
            "text/event-stream",
            "The stream. It does not end by itself.",
        )
}

pub(in crate::http) fn socket() -> Operation {
    start(Operation::new(
        Group::Streams,
        "openSocket",
        "Streams a user's notifications over a WebSocket",
    ))
    .query(
        "ack",
        json!({ "type": "string", "enum": ["true", "false"], "default": "false" }),
        "With `true`, a notification counts as sent when the client has acknowledged it.",
    )
    .replies_nothing(StatusCode::SWITCHING_PROTOCOLS, "The WebSocket is open.")
    .fails_with(&[Code::UpgradeRequired])
}

/// Where a stream starts.
fn start(operation: Operation) -> Operation {
    operation
        .query(
            "since",
            json!({
                "anyOf": [
                    { "type": "string", "enum": ["now", "start", "undelivered"] },
                    { "type": "string", "format": "date-time" },
                    { "$ref": "#/components/schemas/EventId" },
                ],
                "default": "now",
            }),
            "Where the stream starts. A cursor takes precedence.",
        )
        .query(
            "last_event_id",
            cursor(),
            "The cursor: the id of the last notification that the client has.",
        )
        .header(
            "Last-Event-ID",
            cursor(),
            "The cursor, as `EventSource` sends it.",
        )
}

/// A cursor that is not an id begins the stream with a gap.
fn cursor() -> Value {
    json!({ "type": "string", "examples": ["6f1c0a52d3e84b97-17"] })
}
