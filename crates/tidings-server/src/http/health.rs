//! `/health/…`: for load balancers and supervisors.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::app::SharedApp;
use crate::wire::Health;

/// The process replies.
pub(crate) async fn live() -> Response {
    Json(Health { status: "live" }).into_response()
}

/// The server can accept notifications: it is not stopping, and its database can be written.
pub(crate) async fn ready(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    if let Err(error) = app.readiness.check(&*app.storage.records).await {
        return Err(ApiError::not_ready(&error));
    }
    Ok(Json(Health { status: "ready" }).into_response())
}
