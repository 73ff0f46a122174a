use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::api_keys::NewKey;
use crate::http::extract::NoFields;
use crate::http::operation::{Group, Operation};
use crate::wire::Data;
use crate::wire::api_key::{ApiKey, CreatedApiKey, key_id};
use crate::wire::code::Code;
use crate::wire::whoami::WhoAmI;

fn key(more: Value) -> Value {
    let mut key = json!({
        "id": "key_00ae3a1b2c3d4e5f",
        "name": "shop",
        "prefix": "tk_Zm9v",
        "scopes": ["publish", "read"],
        "created_at": "2026-11-21T10:00:00Z",
        "expires_at": null,
        "last_used_at": null,
    });
    if let (Some(fields), Value::Object(more)) = (key.as_object_mut(), more) {
        fields.extend(more);
    }
    key
}

pub(in crate::http) fn whoami() -> Operation {
    Operation::new(
        Group::Keys,
        "whoAmI",
        "Says who calls, and what they may do",
    )
    .description("Every API key and every token may ask.")
    .replies::<WhoAmI>(
        StatusCode::OK,
        "The caller.",
        json!({
            "kind": "key",
            "name": "shop",
            "user_id": null,
            "scopes": ["publish", "read"],
            "expires_at": null,
        }),
    )
}

pub(in crate::http) fn list() -> Operation {
    Operation::new(Group::Keys, "listKeys", "Lists the API keys, oldest first")
        .replies::<Data<Vec<ApiKey>>>(
            StatusCode::OK,
            "The keys, without the keys themselves.",
            json!({ "data": [key(json!({}))] }),
        )
}

pub(in crate::http) fn create() -> Operation {
    Operation::new(Group::Keys, "createKey", "Makes an API key")
        .description(
            "Only this response contains the key, and that to a repeat with the same `Idempotency-Key` and API key.",
        )
        .carried_out_once()
        .takes::<NewKey>(json!({ "name": "shop", "scopes": ["publish", "read"] }))
        .replies::<CreatedApiKey>(
            StatusCode::CREATED,
            "The key is valid.",
            key(json!({ "key": "tk_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6" })),
        )
        .fails_with(&[Code::TooManyKeys])
}

pub(in crate::http) fn revoke() -> Operation {
    Operation::new(Group::Keys, "revokeKey", "Revokes an API key")
        .description("Other instances learn of it within seconds. Then streams that were opened with it end.")
        .of_a(key_id)
        .may_take::<NoFields>(json!({}))
        .replies_nothing(StatusCode::NO_CONTENT, "The key is no longer valid.")
}
