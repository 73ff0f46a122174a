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
    app.readiness.check(&app.database).await?;
    Ok(Json(Health { status: "ready" }).into_response())
}
