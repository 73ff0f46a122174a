//! API keys.

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use tidings_storage::{Scopes, StoredKey};

/// An API key, as it is listed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ApiKey {
    #[schemars(schema_with = "key_id")]
    pub(crate) id: String,
    pub(crate) name: String,
    /// The first characters of the key.
    pub(crate) prefix: String,
    pub(crate) scopes: Scopes,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
}

/// The schema of the id of a key.
pub(crate) fn key_id(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The name of an API key.",
        "type": "string",
        "pattern": "^key_[0-9a-f]{16}$",
        "examples": ["key_00ae3a1b2c3d4e5f"],
    })
}

impl From<StoredKey> for ApiKey {
    fn from(stored: StoredKey) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            prefix: stored.prefix,
            scopes: stored.scopes,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            last_used_at: stored.last_used_at,
        }
    }
}

/// A new API key: only this response has the key itself.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct CreatedApiKey {
    #[serde(flatten)]
    pub(crate) described: ApiKey,
    pub(crate) key: String,
}

/// What a request for a new key has.
#[derive(Debug, Serialize)]
pub(crate) struct NewApiKey<'a> {
    pub(crate) name: &'a str,
    pub(crate) scopes: Scopes,
    pub(crate) expires_at: Option<Timestamp>,
}
