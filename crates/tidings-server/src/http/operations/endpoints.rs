use axum::http::StatusCode;
use serde_json::{Value, json};
use tidings_webhooks::{Endpoint, EndpointId};

use crate::http::endpoints::fields::{
    ChangedEndpointFields, NewEndpointFields, NewReplay, Rotation,
};
use crate::http::extract::NoFields;
use crate::http::operation::{Group, Operation};
use crate::wire::Data;
use crate::wire::code::Code;
use crate::wire::webhook::{CreatedEndpoint, EndpointWithHealth, RotatedSecret, TestDelivery};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

fn operation(name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Group::Webhooks, name, summary)
}

/// An endpoint, with more fields.
fn endpoint(more: Value) -> Value {
    let mut endpoint = json!({
        "id": "ep_00ae3a1b2c3d4e5f",
        "user_id": null,
        "url": "https://example.com/hook",
        "description": "",
        "event_types": ["order.*"],
        "format": "envelope",
        "headers": {},
        "signatures": ["standard"],
        "rate_limit": null,
        "timeout_ms": null,
        "schedule": null,
        "enabled": true,
        "created_at": "2026-11-21T10:00:00Z",
    });
    if let (Some(fields), Value::Object(more)) = (endpoint.as_object_mut(), more) {
        fields.extend(more);
    }
    endpoint
}

pub(in crate::http) fn list() -> Operation {
    operation("listEndpoints", "Lists the endpoints, oldest first").replies::<Data<Vec<Endpoint>>>(
        StatusCode::OK,
        "The endpoints of this owner.",
        json!({ "data": [endpoint(json!({}))] }),
    )
}

pub(in crate::http) fn create() -> Operation {
    operation("createEndpoint", "Creates an endpoint")
        .description("It gets the events that are accepted from now on. Only this response contains its secret.")
        .takes::<NewEndpointFields>(
            json!({ "url": "https://example.com/hook", "event_types": ["order.*"] }),
        )
        .replies::<CreatedEndpoint>(
            StatusCode::CREATED,
            "The endpoint is stored.",
            endpoint(json!({ "secret": SECRET })),
        )
        .fails_with(&[Code::TooManyEndpoints])
        .repeats_its_response()
}

pub(in crate::http) fn show() -> Operation {
    operation("getEndpoint", "Shows an endpoint with its health")
        .of::<EndpointId>()
        .replies::<EndpointWithHealth>(
            StatusCode::OK,
            "The endpoint.",
            endpoint(json!({ "health": {
                "circuit": "closed",
                "pending": 0,
                "last_success_at": "2026-11-21T10:00:00Z",
                "last_failure_at": null,
                "success_rate": 1.0,
                "replay": { "remaining": 120, "per_second": 10 },
            } })),
        )
}

pub(in crate::http) fn update() -> Operation {
    operation("updateEndpoint", "Changes the given fields of an endpoint")
        .of::<EndpointId>()
        .takes::<ChangedEndpointFields>(json!({ "rate_limit": 10, "schedule": null }))
        .replies::<Endpoint>(
            StatusCode::OK,
            "The endpoint afterwards.",
            endpoint(json!({ "rate_limit": 10 })),
        )
        .fails_with(&[Code::Contended])
}

pub(in crate::http) fn remove() -> Operation {
    operation(
        "removeEndpoint",
        "Removes an endpoint, and cancels its pending deliveries",
    )
    .of::<EndpointId>()
    .may_take::<NoFields>(json!({}))
    .replies_nothing(StatusCode::NO_CONTENT, "The endpoint is removed.")
    .fails_with(&[Code::Contended])
}

pub(in crate::http) fn rotate_secret() -> Operation {
    operation("rotateSecret", "Gives an endpoint a new secret")
        .description("The old secret signs too until the overlap ends.")
        .of::<EndpointId>()
        .may_take::<Rotation>(json!({ "overlap_ms": 86_400_000 }))
        .replies::<RotatedSecret>(
            StatusCode::OK,
            "The new secret.",
            json!({ "secret": SECRET }),
        )
        .fails_with(&[Code::Contended])
        .carried_out_once()
}

pub(in crate::http) fn send_test() -> Operation {
    operation("testEndpoint", "Sends a test event to an endpoint")
        .of::<EndpointId>()
        .may_take::<NoFields>(json!({}))
        .replies::<TestDelivery>(
            StatusCode::ACCEPTED,
            "The delivery is stored.",
            json!({ "delivery_id": "dlv_0000000000000017" }),
        )
        .fails_with(&[Code::EndpointDisabled])
        .carried_out_once()
}

pub(in crate::http) fn replay() -> Operation {
    operation("replayEndpoint", "Sends again what an endpoint has missed")
        .description(
            "Sends what failed, was cancelled or arrived while the endpoint was disabled. It replaces a replay that \
             still runs.",
        )
        .of::<EndpointId>()
        .takes::<NewReplay>(json!({ "since": "2026-11-21T10:00:00Z", "per_second": 10 }))
        .replies_nothing(StatusCode::ACCEPTED, "The replay has begun.")
        .fails_with(&[Code::EndpointDisabled, Code::Contended])
        .carried_out_once()
}

pub(in crate::http) fn stop_replay() -> Operation {
    operation(
        "stopReplay",
        "Stops the replay to an endpoint, if one is under way",
    )
    .description(
        "What it has made due is still sent: about as much as it sends in a second, or more if the endpoint is \
             slower than the replay.",
    )
    .of::<EndpointId>()
    .may_take::<NoFields>(json!({}))
    .replies_nothing(StatusCode::NO_CONTENT, "No replay is under way.")
}
