//! `GET /asyncapi.json`: the description of the streams, made from the documents that are sent.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tidings_notify::Event;
use tidings_notify::wire::{
    BYE, Bye, CAUGHT_UP, CHANGED, CaughtUp, ChangedFrame, ERROR, EXPIRING, Expiring, GAP, GapFrame,
    HELLO, Hello, NOTIFICATION, Notification, PING, Ping, Request, SSE_PREFIX,
};

use super::operation::SchemaOf;
use crate::wire::{ErrorDescription, unversioned};

/// The document. It does not change while the program runs.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| make().to_string().into());

pub(super) async fn document() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DOCUMENT.clone()).into_response()
}

/// The documents that are not notifications: the name of each, its schema, and when it is sent.
const CONTROLS: [(&str, SchemaOf, &str); 6] = [
    (
        HELLO,
        SchemaGenerator::subschema_for::<Hello<'static>>,
        "First on every stream.",
    ),
    (
        CAUGHT_UP,
        SchemaGenerator::subschema_for::<CaughtUp>,
        "Once, after the backlog.",
    ),
    (
        GAP,
        SchemaGenerator::subschema_for::<GapFrame>,
        "Where events are missing.",
    ),
    (
        CHANGED,
        SchemaGenerator::subschema_for::<ChangedFrame>,
        "After a change of the inbox.",
    ),
    (
        EXPIRING,
        SchemaGenerator::subschema_for::<Expiring>,
        "Before the token or the API key expires.",
    ),
    (
        BYE,
        SchemaGenerator::subschema_for::<Bye>,
        "Last on a stream that the server ends.",
    ),
];

/// Makes the document.
fn make() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut sent = settings.clone().for_serialize().into_generator();
    let mut received = settings.for_deserialize().into_generator();

    let mut events = Map::new();
    let mut frames = Map::new();
    let notification = sent.subschema_for::<Event>();
    events.insert(
        NOTIFICATION.to_owned(),
        json!({
            "summary": "A notification. It has no `event:` line, or its type with `?event=type`.",
            "payload": notification,
        }),
    );
    let notification = sent.subschema_for::<Notification<'static>>();
    frames.insert(
        NOTIFICATION.to_owned(),
        json!({
            "summary": "A notification.",
            "payload": framed(NOTIFICATION, &json!(notification)),
        }),
    );
    for (name, schema, when) in CONTROLS {
        let schema = schema(&mut sent);
        let in_events = format!("{SSE_PREFIX}{name}");
        let event = json!({ "name": in_events, "summary": when, "payload": schema });
        events.insert(in_events, event);
        let payload = framed(name, &json!(schema));
        frames.insert(
            name.to_owned(),
            json!({ "name": name, "summary": when, "payload": payload }),
        );
    }
    let error = sent.subschema_for::<ErrorDescription>();
    frames.insert(
        ERROR.to_owned(),
        json!({
            "name": ERROR,
            "summary": "After a request that cannot be carried out.",
            "payload": framed(ERROR, &json!(error)),
        }),
    );
    let ping = sent.subschema_for::<Ping>();
    frames.insert(
        PING.to_owned(),
        json!({
            "name": PING,
            "summary": "Beside each ping of the protocol, which a browser hides from the page.",
            "payload": framed(PING, &json!(ping)),
        }),
    );
    let request = received.subschema_for::<Request>();
    let message = sent.subschema_for::<unversioned::Notification<'static>>();
    let operations = operations(&events, &frames);
    frames.insert(
        "request".to_owned(),
        json!({
            "summary": "What a client may ask for. The server replies only if it cannot be carried out.",
            "payload": request,
        }),
    );
    let mut schemas = sent.take_definitions(true);
    schemas.extend(received.take_definitions(true));
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidings",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The streams. The routes that open them, with their parameters, are in /openapi.json.",
        },
        "defaultContentType": "application/json",
        "channels": channels(&events, &frames, &json!(message)),
        "operations": operations,
        "components": { "schemas": schemas },
    })
}

/// Who sends what.
fn operations(events: &Map<String, Value>, frames: &Map<String, Value>) -> Value {
    let replies = |names: &Map<String, Value>, channel: &str| -> Vec<Value> {
        let names = names.keys();
        let reference = |name| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
        names.map(reference).collect()
    };
    json!({
        "sendEvents": {
            "action": "send",
            "channel": { "$ref": "#/channels/events" },
            "messages": replies(events, "events"),
        },
        "sendFrames": {
            "action": "send",
            "channel": { "$ref": "#/channels/socket" },
            "messages": replies(frames, "socket"),
        },
        "receiveRequests": {
            "action": "receive",
            "channel": { "$ref": "#/channels/socket" },
            "messages": [{ "$ref": "#/channels/socket/messages/request" }],
        },
        "sendMessages": {
            "action": "send",
            "channel": { "$ref": "#/channels/messages" },
            "messages": [{ "$ref": "#/channels/messages/messages/message" }],
        },
    })
}

/// Where it is sent.
fn channels(events: &Map<String, Value>, frames: &Map<String, Value>, message: &Value) -> Value {
    let user = json!({ "user": { "description": "The user, percent-encoded." } });
    json!({
        "events": {
            "address": "/v1/users/{user}/events",
            "description": "Server-Sent Events: each message is the `data:` of an event, whose `event:` is the \
                name of the message.",
            "parameters": user,
            "messages": events,
        },
        "socket": {
            "address": "/v1/users/{user}/ws",
            "description": "A WebSocket: each message is a text frame.",
            "parameters": user,
            "messages": frames,
        },
        "messages": {
            "address": "/ws/{user}",
            "description": "The unversioned WebSocket: notifications, and nothing else.",
            "parameters": user,
            "messages": { "message": { "summary": "A notification.", "payload": message } },
        },
    })
}

/// A document in the frame of a WebSocket.
fn framed(name: &str, schema: &Value) -> Value {
    json!({ "allOf": [
        schema,
        { "type": "object", "properties": { "event": { "const": name } }, "required": ["event"] },
    ] })
}

#[cfg(test)]
mod tests;
