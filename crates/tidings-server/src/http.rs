//! The HTTP interface: the handler of each route, and what applies to all routes.

mod access;
mod any_handler;
mod api_keys;
mod asset;
mod asyncapi;
mod bins;
mod body;
mod client;
mod console;
mod cursor;
mod deliveries;
mod endpoints;
mod entries;
mod error;
mod event_loop;
mod expected;
mod extract;
mod feed;
mod fields;
mod health;
mod inbox;
mod last_encoded;
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
mod response_room;
mod routes;
#[cfg(test)]
mod running;
mod socket;
mod sse;
mod unversioned;
mod upgrade;
mod websocket;
mod whoami;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

pub(crate) use self::body::Room;
use self::error::ApiError;
pub(crate) use self::event_loop::{EventLoops, LoopTasks};
use self::extract::{check_host, check_transfer_encoding};
use self::origin::{Origins, check_origin, preflight_response};
use self::rate_limit::refused_connection;
use crate::app::{App, SharedApp};
use crate::telemetry::Requests;
use crate::wire::code::Code;

/// Builds the service for all requests.
pub(crate) fn router(app: SharedApp) -> Router {
    let around = Arc::new(Around {
        origins: Origins::new(&app.config),
        requests: Requests::default(),
        app: Arc::clone(&app),
    });
    routes::router(&app.access, &app.limits)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(around, pass))
        .with_state(app)
}

/// What is around every route.
#[derive(Debug)]
struct Around {
    app: SharedApp,
    origins: Origins,
    requests: Requests,
}

/// Takes a request to its route. This is one layer and not one for each thing that it does, because each layer
/// costs every request a few allocations.
async fn pass(State(around): State<Arc<Around>>, request: Request, next: Next) -> Response {
    let Around {
        app,
        origins,
        requests,
    } = &*around;
    let mut response = observe::observe(app, requests, request, |request| {
        check(app, origins, request, next)
    })
    .await;
    // A cache in between would give the response to one user to others, if their tokens are in cookies.
    let cached = response.headers_mut().entry(header::CACHE_CONTROL);
    cached.or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn check(app: &App, origins: &Origins, request: Request, next: Next) -> Response {
    let page = check_host(&request)
        .and_then(|()| check_transfer_encoding(request.headers()))
        .and_then(|()| check_origin(origins, &request));
    let page = match page {
        Ok(page) => page,
        Err(refused) => return refused.into_response(),
    };
    let Some(page) = page else {
        return limit(app, request, next).await;
    };
    let mut response = match preflight_response(&request) {
        Some(response) => response,
        None => limit(app, request, next).await,
    };
    page.let_read(response.headers_mut());
    response
}

async fn limit(app: &App, mut request: Request, next: Next) -> Response {
    if let Some(refused) = refused_connection(&request) {
        return refused;
    }
    match body::limit(app, &mut request) {
        Ok(_until_the_response) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
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
