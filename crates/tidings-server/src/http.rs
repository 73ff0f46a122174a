//! The HTTP interface: the handler of each route, and what applies to all routes.

mod access;
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
mod notifications;
mod presence;
mod sse;
mod unversioned;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tidings_notify::{InboxAction, UserId};

use self::access::Access;
use self::error::ApiError;
use self::extract::{InPath, NoFields};
use crate::app::SharedApp;

/// The route that writes to the database although it is a `GET`.
const READY: &str = "/health/ready";

/// Builds the service for all requests.
pub(crate) fn router(app: SharedApp) -> Router {
    let access = Arc::new(Access::new(&app.config));
    let keyed = versioned()
        .merge(unversioned_routes())
        .layer(from_fn_with_state(Arc::clone(&access), access::require_key));
    Router::new()
        .merge(keyed)
        .merge(open_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(app.config.max_body_bytes))
        .layer(from_fn_with_state(
            app.config.max_body_bytes,
            extract::check_length,
        ))
        .layer(from_fn_with_state(access, access::check_origin))
        .layer(from_fn(extract::check_host))
        .layer(from_fn_with_state(Arc::clone(&app), log_request))
        .with_state(app)
}

fn versioned() -> Router<SharedApp> {
    Router::new()
        .route("/v1/notifications", post(notifications::create))
        .route("/v1/notifications/batch", post(notifications::create_batch))
        .route("/v1/users/{user}/notifications", get(inbox::list))
        .route(
            "/v1/users/{user}/notifications/read-all",
            post(inbox::read_all),
        )
        .route(
            "/v1/users/{user}/notifications/unread-count",
            get(inbox::unread_count),
        )
        .route("/v1/users/{user}/notifications/seen", post(inbox::seen))
        .merge(on_one("read", InboxAction::Read))
        .merge(on_one("unread", InboxAction::Unread))
        .merge(on_one("archive", InboxAction::Archive))
        .merge(on_one("unarchive", InboxAction::Unarchive))
        .route("/v1/users/{user}/events", get(sse::events))
        .route("/v1/users/{user}/ws", get(websocket::connect))
        .route("/v1/users/{user}/presence", get(presence::show))
        .route("/v1/presence/query", post(presence::query))
        .merge(endpoints::routes())
        .merge(deliveries::routes())
}

/// The route that does something with one notification.
fn on_one(name: &str, action: inbox::OnOne) -> Router<SharedApp> {
    let handler =
        async move |State(app), InPath::<UserId>(user), InPath::<String>(id), NoFields| {
            inbox::on_one(app, user, id, action).await
        };
    let path = format!("/v1/users/{{user}}/notifications/{{id}}/{name}");
    Router::new().route(&path, post(handler))
}

/// The four routes of the service that Tidings replaces.
fn unversioned_routes() -> Router<SharedApp> {
    Router::new()
        .route("/notifications", post(unversioned::create))
        .route("/notifications/{user}", get(unversioned::list))
        .route("/notifications/{user}/{id}/read", post(unversioned::read))
        .route("/ws/{user}", get(unversioned::connect))
}

/// The routes that require no key.
fn open_routes() -> Router<SharedApp> {
    Router::new()
        .route("/health/live", get(health::live))
        .route(READY, get(health::ready))
        .route("/", get(console::page))
        .route("/console/console.css", get(console::style))
        .route("/console/console.js", get(console::script))
}

async fn not_found(request: Request) -> ApiError {
    let path = request.uri().path();
    if path.starts_with("/v1/users//") || matches!(path, "/notifications/" | "/ws/") {
        return ApiError::invalid("user", "expected 1 to 255 bytes, got 0");
    }
    ApiError::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        format!("unknown route {path}"),
    )
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("this route does not support {method}; see the Allow header"),
    )
}

/// Logs each response, and what it says of the database. The query is left out: it can contain secrets.
async fn log_request(
    State(app): State<SharedApp>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let start = tokio::time::Instant::now();
    let response = next.run(request).await;
    tracing::debug!(
        http.request.method = %method,
        url.path = path,
        http.response.status_code = response.status().as_u16(),
        elapsed = ?start.elapsed(),
        "request finished"
    );
    let writes = method != Method::GET || path == READY;
    match response.extensions().get() {
        Some(cause) => app.outage.failed(cause),
        None if writes && response.status().is_success() => app.outage.worked(),
        None => {}
    }
    response
}
