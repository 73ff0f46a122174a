//! `GET /metrics`: the metrics of this process, for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::app::SharedApp;
use crate::telemetry::{self, prometheus};
use crate::wire::code::Code;

/// The text format of Prometheus.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long the database may take to say how far it is behind. The metrics are shown without it, because they are
/// needed most when the database is slow.
const LAG_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn show(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    match tokio::time::timeout(LAG_TIMEOUT, app.webhooks.fan_out_lag()).await {
        Ok(Ok(lag)) => telemetry::fan_out_lag(lag),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the lag in the metrics is an earlier one");
        }
        Err(_) => tracing::debug!("the lag in the metrics is an earlier one: the database is slow"),
    }
    match prometheus::render().await {
        Some(Ok(text)) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Some(Err(error)) => Err(ApiError::internal(&error)),
        None => Err(ApiError::new(
            Code::NotFound,
            "the program that this server is a part of has its own recorder of metrics, or none",
        )),
    }
}
