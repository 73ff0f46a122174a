//! Health: what load balancers and supervisors ask.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use crate::app::SharedApp;

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// The process answers.
pub(crate) async fn live() -> Response {
    Json(Health { status: "live" }).into_response()
}

/// The server can accept notifications: it is not stopping, and its storage can be written.
pub(crate) async fn ready(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the server is stopping",
        ));
    }
    app.readiness.check(&app.database).await?;
    Ok(Json(Health { status: "ready" }).into_response())
}
