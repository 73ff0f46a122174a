use axum::http::StatusCode;
use serde_json::{Value, json};
use tidings_webhooks::{AttemptRecord, Delivery, DeliveryId, EndpointId};

use super::limit;
use crate::http::extract::NoFields;
use crate::http::operation::{Group, Operation};
use crate::wire::code::Code;
use crate::wire::webhook::{DEFAULT_PAGE, MAX_PAGE, SentMessage};
use crate::wire::{Data, Page};

fn delivery() -> Value {
    json!({
        "id": "dlv_0000000000000017",
        "message_id": "6f1c0a52d3e84b97-17",
        "type": "greeting",
        "endpoint_id": "ep_00ae3a1b2c3d4e5f",
        "user_id": null,
        "state": "pending",
        "attempts": 1,
        "next_attempt_at": "2026-11-21T10:00:05Z",
        "created_at": "2026-11-21T10:00:00Z",
        "finished_at": null,
    })
}

pub(in crate::http) fn list() -> Operation {
    let operation = Operation::new(
        Group::Webhooks,
        "listDeliveries",
        "Lists deliveries, newest first",
    );
    page(operation.query(
        "endpoint_id",
        json!({ "$ref": "#/components/schemas/EndpointId" }),
        "Only those to this endpoint.",
    ))
}

pub(in crate::http) fn list_of_one() -> Operation {
    let operation = Operation::new(
        Group::Webhooks,
        "listDeliveriesTo",
        "Lists the deliveries to an endpoint, newest first",
    );
    page(operation.of::<EndpointId>())
}

fn page(operation: Operation) -> Operation {
    operation
        .query(
            "state",
            json!({ "$ref": "#/components/schemas/DeliveryState" }),
            "Only those in this state.",
        )
        .query(
            "limit",
            limit(DEFAULT_PAGE, MAX_PAGE),
            "Most deliveries of the page.",
        )
        .query(
            "cursor",
            json!({ "$ref": "#/components/schemas/DeliveryId" }),
            "The `next` of the page before.",
        )
        .replies::<Page<Delivery>>(
            StatusCode::OK,
            "A page of deliveries.",
            json!({ "data": [delivery()], "next": null }),
        )
}

pub(in crate::http) fn show() -> Operation {
    Operation::new(Group::Webhooks, "getDelivery", "Shows a delivery")
        .of::<DeliveryId>()
        .replies::<Delivery>(StatusCode::OK, "The delivery.", delivery())
}

pub(in crate::http) fn attempts() -> Operation {
    Operation::new(
        Group::Webhooks,
        "listAttempts",
        "Lists the requests of a delivery",
    )
    .of::<DeliveryId>()
    .replies::<Data<Vec<AttemptRecord>>>(
        StatusCode::OK,
        "The requests, oldest first.",
        json!({ "data": [{
                "number": 1,
                "started_at": "2026-11-21T10:00:00Z",
                "duration_ms": 12.5,
                "status": 503,
                "error": null,
                "response": "overloaded",
            }] }),
    )
}

pub(in crate::http) fn message() -> Operation {
    Operation::new(
        Group::Webhooks,
        "getMessage",
        "Shows what the requests of a delivery have as their body",
    )
    .of::<DeliveryId>()
    .replies::<SentMessage>(
        StatusCode::OK,
        "The body, in the present format of the endpoint.",
        json!({ "body": "{\"id\":\"6f1c0a52d3e84b97-17\",\"type\":\"greeting\",\"timestamp\":\"2026-11-21T10:00:00Z\",\"user_id\":\"anna\",\"data\":{\"text\":\"Hello\"}}" }),
    )
}

pub(in crate::http) fn retry() -> Operation {
    Operation::new(
        Group::Webhooks,
        "retryDelivery",
        "Sends a delivery again, in any state",
    )
    .of::<DeliveryId>()
    .may_take::<NoFields>(json!({}))
    .replies::<Delivery>(
        StatusCode::OK,
        "The delivery, which is pending.",
        delivery(),
    )
    .fails_with(&[Code::EndpointDisabled])
    .carried_out_once()
}
