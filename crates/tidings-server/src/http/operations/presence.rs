use axum::http::StatusCode;
use serde_json::json;

use crate::http::operation::{Group, Operation};
use crate::http::presence::PresenceQuery;
use crate::wire::Data;
use crate::wire::code::Code;
use crate::wire::presence::UserPresence;

pub(in crate::http) fn show() -> Operation {
    Operation::new(
        Group::Presence,
        "getPresence",
        "Shows whether a user is online",
    )
    .replies::<UserPresence>(
        StatusCode::OK,
        "Whether the user has a stream open.",
        json!({ "user_id": "anna", "online": true }),
    )
    .fails_with(&[Code::PresenceUnavailable])
}

pub(in crate::http) fn query() -> Operation {
    Operation::new(
        Group::Presence,
        "queryPresence",
        "Shows which of several users are online",
    )
    .takes::<PresenceQuery>(json!({ "user_ids": ["anna", "ben"] }))
    .replies::<Data<Vec<UserPresence>>>(
        StatusCode::OK,
        "The users in their order.",
        json!({ "data": [
                { "user_id": "anna", "online": true },
                { "user_id": "ben", "online": false },
            ] }),
    )
    .fails_with(&[Code::PresenceUnavailable])
}
