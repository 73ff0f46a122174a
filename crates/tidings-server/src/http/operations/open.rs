use axum::http::StatusCode;
use serde_json::json;

use crate::http::operation::{Group, Operation};
use crate::wire::Health;
use crate::wire::code::Code;

fn operation(name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Group::Operation, name, summary)
}

pub(in crate::http) fn live() -> Operation {
    operation("getLiveness", "Replies as long as the server runs").replies::<Health>(
        StatusCode::OK,
        "The server runs.",
        json!({ "status": "live" }),
    )
}

pub(in crate::http) fn ready() -> Operation {
    operation(
        "getReadiness",
        "Shows whether the server can accept notifications",
    )
    .replies::<Health>(
        StatusCode::OK,
        "The database can be written.",
        json!({ "status": "ready" }),
    )
    .fails_with(&[
        Code::NotReady,
        Code::Stopping,
        Code::StorageFull,
        Code::StorageUnavailable,
        Code::Locked,
        Code::OutcomeUnknown,
        Code::TooSlow,
    ])
}

/// A page, or a part of one.
pub(in crate::http) fn page(
    name: &'static str,
    summary: &'static str,
    content_type: &'static str,
) -> Operation {
    operation(name, summary).replies_text(content_type, "The file.")
}

/// A description of this interface.
pub(in crate::http) fn document(name: &'static str, summary: &'static str) -> Operation {
    page(name, summary, "application/json")
}
