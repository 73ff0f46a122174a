//! The parts of the document that several operations share.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::access::credential;
use crate::wire::code::Code;

/// A response that is an error: codes of one status.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure(Vec<Code>);

impl Failure {
    /// The codes have one status.
    pub(super) fn new(codes: impl Into<Vec<Code>>) -> Self {
        Self(codes.into())
    }

    /// One failure for each status.
    pub(super) fn by_status(codes: BTreeSet<Code>) -> impl Iterator<Item = Self> {
        let mut by_status: BTreeMap<StatusCode, Vec<Code>> = BTreeMap::new();
        for code in codes {
            by_status.entry(code.status()).or_default().push(code);
        }
        by_status.into_values().map(Self)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.first().map_or(StatusCode::OK, |code| code.status())
    }

    /// The name of the component.
    pub(super) fn name(&self) -> String {
        let names = self.0.iter().map(|code| json!(code));
        let names = names.filter_map(|name| name.as_str().map(str::to_owned));
        let parts = std::iter::once(self.status().as_str().to_owned()).chain(names);
        parts.collect::<Vec<_>>().join(".")
    }

    /// The component with its name.
    pub(super) fn described(&self) -> (String, Value) {
        let examples = self.0.iter().map(|code| {
            let (name, meaning) = (json!(code), code.meaning());
            let value = json!({ "error": { "code": name, "message": meaning } });
            let name = name.as_str().unwrap_or_default().to_owned();
            (name, json!({ "summary": meaning, "value": value }))
        });
        let examples: Map<String, Value> = examples.collect();
        let meanings: Vec<_> = self.0.iter().map(|code| code.meaning()).collect();
        let mut response = json!({
            "description": meanings.join("; or "),
            "content": { "application/json": {
                "schema": { "allOf": [
                    { "$ref": "#/components/schemas/Error" },
                    { "properties": { "error": { "properties": { "code": { "enum": self.0 } } } } },
                ] },
                "examples": examples,
            } },
        });
        let mut headers = Map::from_iter([request_id_header()]);
        match self.status() {
            StatusCode::UNAUTHORIZED => headers.extend([header("WWW-Authenticate")]),
            StatusCode::METHOD_NOT_ALLOWED => headers.extend([header("Allow")]),
            StatusCode::SERVICE_UNAVAILABLE => headers.extend([header("Retry-After")]),
            StatusCode::TOO_MANY_REQUESTS => {
                headers.extend([header("Retry-After")]);
                headers.extend(rate_limit_headers());
            }
            _ => {}
        }
        response["headers"] = headers.into();
        (self.name(), response)
    }
}

/// A header of a response, with its name.
fn header(name: &str) -> (String, Value) {
    let reference = json!({ "$ref": format!("#/components/headers/{name}") });
    (name.to_owned(), reference)
}

/// The header by which the log of the server is searched.
pub(super) fn request_id_header() -> (String, Value) {
    header("X-Request-Id")
}

/// The headers that say how much a caller may still send.
pub(super) fn rate_limit_headers() -> [(String, Value); 2] {
    [header("RateLimit"), header("RateLimit-Policy")]
}

/// The headers of responses.
pub(super) fn headers() -> Value {
    json!({
        "X-Request-Id": {
            "description": "What the request is called in the log of the server: the `X-Request-Id` of the request \
                if that has 1 to 128 visible ASCII characters, or a new one.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" },
            "example": "0af7651916cd43dd8448eb211c80319c",
        },
        "Retry-After": {
            "description": "Seconds after which a repeat may succeed.",
            "required": true,
            "schema": { "type": "integer", "minimum": 0 },
            "example": 5,
        },
        "RateLimit": {
            "description": "How many requests are left, and for how many seconds; if the server limits them.",
            "schema": { "type": "string" },
            "example": "\"requests\";r=99;t=1",
        },
        "RateLimit-Policy": {
            "description": "How many requests are allowed in a time; if the server limits them.",
            "schema": { "type": "string" },
            "example": "\"requests\";q=100;w=1",
        },
        "WWW-Authenticate": {
            "description": "What the server expects, as in RFC 6750.",
            "required": true,
            "schema": { "type": "string" },
            "example": "Bearer",
        },
        "Allow": {
            "description": "The methods of the path.",
            "required": true,
            "schema": { "type": "string" },
            "example": "GET,HEAD,POST",
        },
    })
}

/// What proves who calls.
pub(super) fn security_schemes() -> Value {
    json!({
        "apiKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key. A key of the database needs the scope that the operation names.",
        },
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token of the user in the path. It may also be sent in the cookie that `--jwt-cookie` \
                names, or as the WebSocket subprotocol `tidings.token.<token>`. Endpoints need the claim \
                `endpoints`.",
        },
        "tokenInQuery": {
            "type": "apiKey",
            "in": "query",
            "name": credential::PARAMETER,
            "description": "The same token, for `EventSource`. A proxy in front may log it.",
        },
    })
}
