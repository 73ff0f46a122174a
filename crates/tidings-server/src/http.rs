//! The HTTP interface: the handler of each route, and what applies to all routes.

mod access;
mod api_keys;
mod asyncapi;
mod body;
mod console;
mod cursor;
mod deliveries;
mod endpoints;
mod entries;
mod error;
mod expected;
mod extract;
mod feed;
mod fields;
mod health;
mod inbox;
mod metrics;
mod notifications;
mod observe;
mod openapi;
mod operation;
mod operations;
mod origin;
mod parameters;
mod presence;
mod rate_limit;
mod reference;
mod repeatable;
mod request;
mod request_id;
mod routes;
#[cfg(test)]
mod running;
mod sse;
mod unversioned;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};

pub(crate) use self::body::Room;
use self::error::ApiError;
use self::origin::Origins;
use crate::app::SharedApp;
use crate::wire::code::Code;

/// Builds the service for all requests.
pub(crate) fn router(app: SharedApp) -> Router {
    let origins = Arc::new(Origins::new(&app.config));
    routes::router(&app.access, &app.limits)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), body::limit))
        .layer(from_fn(rate_limit::limit_connections))
        .layer(from_fn_with_state(origins, origin::check_origin))
        .layer(from_fn(extract::check_host))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

async fn not_found(request: Request) -> ApiError {
    let path = request.uri().path();
    if path.starts_with("/v1/users//") || matches!(path, "/notifications/" | "/ws/") {
        return ApiError::invalid("user", "expected 1 to 255 bytes, got 0");
    }
    ApiError::new(Code::UnknownRoute, format!("unknown route {path}"))
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("this route does not support {method}; see the Allow header"),
    )
}
