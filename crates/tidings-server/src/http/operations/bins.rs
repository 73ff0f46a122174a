use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::bins::ChangedBin;
use crate::http::extract::NoFields;
use crate::http::operation::{Group, Operation};
use crate::wire::Data;
use crate::wire::bin::{Bin, BinWithRequests, bin_id};
use crate::wire::code::Code;

fn bin(more: Value) -> Value {
    let mut bin = json!({
        "id": "bin_00ae3a1b2c3d4e5f00ae3a1b2c3d4e5f",
        "path": "/bins/bin_00ae3a1b2c3d4e5f00ae3a1b2c3d4e5f",
        "status": 200,
        "has_secret": true,
        "received": 1,
        "created_at": "2026-11-21T10:00:00Z",
    });
    if let (Some(fields), Value::Object(more)) = (bin.as_object_mut(), more) {
        fields.extend(more);
    }
    bin
}

pub(in crate::http) fn list() -> Operation {
    Operation::new(
        Group::Bins,
        "listBins",
        "Lists the request bins, oldest first",
    )
    .replies::<Data<Vec<Bin>>>(
        StatusCode::OK,
        "The bins of this instance.",
        json!({ "data": [bin(json!({}))] }),
    )
}

pub(in crate::http) fn create() -> Operation {
    Operation::new(Group::Bins, "createBin", "Makes a request bin")
        .description(
            "It takes webhooks at its `path`, and keeps the newest 50, at most 1 MiB of them. It is in the memory of \
             this instance of the server. A day after its last use it ends.",
        )
        .may_take::<NoFields>(json!({}))
        .replies::<Bin>(
            StatusCode::CREATED,
            "The bin takes requests.",
            bin(json!({ "has_secret": false, "received": 0 })),
        )
        .fails_with(&[Code::TooManyBins])
}

pub(in crate::http) fn show() -> Operation {
    Operation::new(
        Group::Bins,
        "getBin",
        "Shows a bin and its requests, newest first",
    )
    .of_a(bin_id)
    .replies::<BinWithRequests>(
        StatusCode::OK,
        "The bin.",
        bin(
            json!({ "host": "tidings.example.com", "reachable": true, "data": [{
                "number": 1,
                "received_at": "2026-11-21T10:00:01Z",
                "headers": [{ "name": "webhook-id", "value": "msg_1" }],
                "body": "{}",
                "status": 200,
                "verified": false,
                "reason": "the header `webhook-timestamp` is missing",
            }] }),
        ),
    )
}

pub(in crate::http) fn update() -> Operation {
    Operation::new(
        Group::Bins,
        "updateBin",
        "Changes what a bin replies and verifies with",
    )
    .of_a(bin_id)
    .takes::<ChangedBin>(json!({ "status": 503 }))
    .replies::<Bin>(
        StatusCode::OK,
        "The bin as it is now.",
        bin(json!({ "status": 503 })),
    )
}

pub(in crate::http) fn remove() -> Operation {
    Operation::new(Group::Bins, "deleteBin", "Removes a bin and its requests")
        .of_a(bin_id)
        .may_take::<NoFields>(json!({}))
        .replies_nothing(StatusCode::NO_CONTENT, "The bin is gone.")
}

pub(in crate::http) fn take() -> Operation {
    Operation::new(Group::Bins, "sendToBin", "Takes a request and keeps it")
        .description(
            "The response has the status of the bin. Who has the `id` can send, without a key.",
        )
        .of_a(bin_id)
        .replies_nothing(StatusCode::OK, "The request is kept.")
        .fails_with(&[
            Code::IncompleteBody,
            Code::InvalidChunks,
            Code::BodyTimeout,
            Code::Busy,
            Code::UnsupportedEncoding,
        ])
}
