//! Request bins.

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::bins::{Received, Settings};

/// A request bin, as it is listed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Bin {
    #[schemars(schema_with = "bin_id")]
    pub(crate) id: String,
    /// Where requests are sent on this server.
    pub(crate) path: String,
    /// The status of its responses.
    pub(crate) status: u16,
    /// Whether it has a secret to verify with.
    pub(crate) has_secret: bool,
    /// How many requests have come.
    pub(crate) received: u64,
    pub(crate) created_at: Timestamp,
}

/// A bin with the requests that it keeps, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BinWithRequests {
    #[serde(flatten)]
    pub(crate) bin: Bin,
    /// The host that the request names, with its port if it has one. Behind a proxy it may be another one than that which
    /// the caller has called.
    pub(crate) host: Option<String>,
    /// Whether endpoints of this server may be at `host`, so that they reach the bin; `null` for a name, whose addresses are
    /// checked when it is called.
    pub(crate) reachable: Option<bool>,
    pub(crate) data: Vec<BinRequest>,
}

/// A request that a bin has taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BinRequest {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) received_at: Timestamp,
    pub(crate) headers: Vec<BinHeader>,
    /// The body; what is not UTF-8 in it is replaced.
    pub(crate) body: String,
    /// The status of the response.
    pub(crate) status: u16,
    /// Whether the signature is valid; `null` without a secret to verify with.
    pub(crate) verified: Option<bool>,
    /// Why it is not.
    pub(crate) reason: Option<String>,
}

/// A header of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BinHeader {
    pub(crate) name: String,
    /// The value; what is not UTF-8 in it is replaced.
    pub(crate) value: String,
}

/// The schema of the id of a bin.
pub(crate) fn bin_id(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The name of a request bin.",
        "type": "string",
        "pattern": "^bin_[0-9a-f]{32}$",
        "examples": ["bin_00ae3a1b2c3d4e5f00ae3a1b2c3d4e5f"],
    })
}

impl From<Settings> for Bin {
    fn from(settings: Settings) -> Self {
        Self {
            path: format!("/bins/{}", settings.id),
            id: settings.id,
            status: settings.status.as_u16(),
            has_secret: settings.secret.is_some(),
            received: settings.received,
            created_at: settings.created_at,
        }
    }
}

impl BinWithRequests {
    pub(crate) fn new(
        settings: Settings,
        requests: Vec<Received>,
        host: Option<String>,
        reachable: Option<bool>,
    ) -> Self {
        let secret = settings.secret.clone();
        let data = requests.into_iter().map(|request| {
            let verified = secret.as_ref().map(|secret| request.verify(secret));
            let headers = request.headers.iter().map(|(name, value)| BinHeader {
                name: name.to_string(),
                value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            });
            BinRequest {
                number: request.number,
                received_at: request.at,
                headers: headers.collect(),
                body: String::from_utf8_lossy(&request.body).into_owned(),
                status: request.status.as_u16(),
                reason: verified
                    .and_then(Result::err)
                    .map(|error| error.to_string()),
                verified: verified.map(|verified| verified.is_ok()),
            }
        });
        Self {
            data: data.collect(),
            bin: settings.into(),
            host,
            reachable,
        }
    }
}
