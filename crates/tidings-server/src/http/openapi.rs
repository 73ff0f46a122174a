//! `GET /openapi.json`: the description of every route, made from the table of routes and the types that are
//! read and written.

mod components;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tidings_notify::{EventId, UserId};
use tidings_storage::idempotency;
use tidings_webhooks::{DeliveryId, DeliveryState, EndpointId};

use self::components::{Failure, headers, rate_limit_headers, request_id_header, security_schemes};
use super::operation::{Content, Group, Parameter, Reply};
use super::routes::{self, Demand, Route};
use crate::wire::code::Code;
use crate::wire::{ErrorBody, ErrorDescription};

/// The document. It does not change while the program runs.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| make().to_string().into());

pub(super) async fn document() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DOCUMENT.clone()).into_response()
}

/// Makes the document.
pub(super) fn make() -> Value {
    let mut document = Document::default();
    let mut paths = Map::new();
    for route in routes::all() {
        let operation = document.operation(&route);
        let path = paths.entry(&route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    let tags = Group::ALL.map(|group| {
        let (name, description) = group.described();
        json!({ "name": name, "description": description })
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidings",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Notifications over REST, WebSocket, Server-Sent Events and webhooks",
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": document.into_components(),
    })
}

const DESCRIPTION: &str = "Bodies are JSON in UTF-8; `Content-Type` is ignored. Unknown fields of a body are \
    refused, except on the unversioned routes. Unknown parameters of a query are refused on the routes below `/v1/`, and \
    ignored on all others. What is given twice is refused. A path that does not exist gets 404 with the code \
    `unknown_route`, a method that a path does not have 405 with `method_not_allowed` and an `Allow` header. `HEAD` is allowed where `GET` is.";

/// The parts of the document that are collected from the operations.
#[derive(Debug)]
struct Document {
    /// Makes the schemas of what is sent to the server.
    requests: SchemaGenerator,
    /// Makes the schemas of what the server sends.
    responses: SchemaGenerator,
    failures: BTreeSet<Failure>,
}

impl Default for Document {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let mut document = Self {
            requests: settings().for_deserialize().into_generator(),
            responses: settings().for_serialize().into_generator(),
            failures: BTreeSet::new(),
        };
        // Parameters and errors refer to these.
        let responses = &mut document.responses;
        responses.subschema_for::<UserId>();
        responses.subschema_for::<EventId>();
        responses.subschema_for::<EndpointId>();
        responses.subschema_for::<DeliveryId>();
        responses.subschema_for::<DeliveryState>();
        responses.subschema_for::<ErrorBody<ErrorDescription>>();
        for code in [Code::UnknownRoute, Code::MethodNotAllowed] {
            document.failures.insert(Failure::new([code]));
        }
        document
    }
}

impl Document {
    fn operation(&mut self, route: &Route) -> Value {
        let operation = &route.operation;
        let (tag, _) = operation.group.described();
        let is_of_a_user = route.is_of_a_user();
        // The endpoints of the operator and those of a user have the same operations, and so have their deliveries.
        let has_both = ["/endpoints", "/deliveries"];
        let owner = if is_of_a_user && has_both.iter().any(|part| route.path.contains(part)) {
            "OfUser"
        } else {
            ""
        };
        let mut described = json!({
            "operationId": format!("{}{owner}", operation.name),
            "tags": [tag],
            "summary": operation.summary,
            "parameters": self.parameters(route),
            "responses": self.all_responses(route),
            "security": security(route),
        });
        if let Some(description) = operation.description {
            described["description"] = description.into();
        }
        if let Some(body) = &operation.body {
            described["requestBody"] = json!({
                "required": body.is_required,
                "content": { "application/json": {
                    "schema": (body.schema)(&mut self.requests),
                    "example": body.example,
                } },
            });
        }
        described
    }

    fn parameters(&mut self, route: &Route) -> Vec<Value> {
        let operation = &route.operation;
        let mut parameters = Vec::new();
        if route.path.contains("{user}") {
            let schema = self.requests.subschema_for::<UserId>();
            parameters
                .push(json!({ "name": "user", "in": "path", "required": true, "schema": schema }));
        }
        if let Some(id) = operation.id {
            let schema = id(&mut self.requests);
            parameters
                .push(json!({ "name": "id", "in": "path", "required": true, "schema": schema }));
        }
        parameters.extend(operation.query.iter().map(|it| parameter(it, "query")));
        parameters.extend(operation.headers.iter().map(|it| parameter(it, "header")));
        if operation.is_repeatable {
            parameters.push(json!({ "$ref": "#/components/parameters/Idempotency-Key" }));
        }
        parameters
    }

    fn all_responses(&mut self, route: &Route) -> Value {
        let mut responses = Map::new();
        for reply in &route.operation.replies {
            let mut response = self.reply(reply);
            let mut headers = Map::from_iter([request_id_header()]);
            if route.demand != Demand::Nothing {
                headers.extend(rate_limit_headers());
            }
            response["headers"] = headers.into();
            responses.insert(reply.status.as_str().to_owned(), response);
        }
        for failure in Failure::by_status(codes(route)) {
            let name = failure.name();
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert(failure.status().as_str().to_owned(), reference);
            self.failures.insert(failure);
        }
        responses.into()
    }

    fn reply(&mut self, reply: &Reply) -> Value {
        let mut response = json!({ "description": reply.description });
        match &reply.content {
            Some(Content::Json { schema, example }) => {
                let schema = schema(&mut self.responses);
                response["content"] =
                    json!({ "application/json": { "schema": schema, "example": example } });
            }
            Some(Content::Text { content_type }) => {
                response["content"] = json!({ *content_type: {} });
            }
            None => {}
        }
        response
    }

    fn into_components(mut self) -> Value {
        let mut schemas = self.responses.take_definitions(true);
        schemas.extend(self.requests.take_definitions(true));
        let responses = self.failures.iter().map(Failure::described);
        let responses: Map<String, Value> = responses.collect();
        json!({
            "schemas": schemas,
            "responses": responses,
            "parameters": { "Idempotency-Key": {
                "name": idempotency::NAME,
                "in": "header",
                "description": "Makes the request repeatable for 24 hours: a request with the same idempotency key \
                    and the same body returns the first response, and stores nothing.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
                "example": "order-17",
            } },
            "headers": headers(),
            "securitySchemes": security_schemes(),
        })
    }
}

fn parameter(parameter: &Parameter, place: &str) -> Value {
    json!({
        "name": parameter.name,
        "in": place,
        "description": parameter.description,
        "schema": parameter.schema,
    })
}

/// Who may call: an API key with the scope, or the user in the path with a token; or any of them.
fn security(route: &Route) -> Value {
    let key = match route.demand {
        Demand::Nothing => return json!([]),
        Demand::Credential => json!({ "apiKey": [] }),
        Demand::Scope(scope) => json!({ "apiKey": [scope] }),
    };
    if route.demand == Demand::Credential || route.is_of_a_user() {
        json!([key, { "token": [] }, { "tokenInQuery": [] }])
    } else {
        json!([key])
    }
}

/// What can go wrong on a route.
fn codes(route: &Route) -> BTreeSet<Code> {
    let mut codes = route.operation.codes.clone();
    // The connection, the Host header, the origin and the length are checked on every route.
    codes.extend([
        Code::TooManyConnections,
        Code::InvalidField,
        Code::OriginNotAllowed,
        Code::HostNotAllowed,
        Code::BodyTooLarge,
    ]);
    if matches!(route.demand, Demand::Scope(_)) {
        codes.insert(Code::Forbidden);
    }
    if route.demand != Demand::Nothing {
        codes.extend([
            Code::Unauthorized,
            Code::TooManyRequests,
            Code::Internal,
            Code::TokenKeysUnavailable,
            Code::Busy,
            Code::Stopping,
            Code::StorageFull,
            Code::StorageUnavailable,
            Code::Locked,
            Code::OutcomeUnknown,
            Code::TooSlow,
        ]);
    }
    if route.operation.body.is_some() {
        codes.extend([
            Code::InvalidJson,
            Code::InvalidBody,
            Code::IncompleteBody,
            Code::InvalidChunks,
            Code::BodyTimeout,
            Code::UnsupportedEncoding,
        ]);
    }
    codes
}

#[cfg(test)]
mod tests;
