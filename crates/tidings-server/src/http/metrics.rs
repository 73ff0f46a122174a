//! `GET /metrics`: the metrics of this process, for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use tidings_webhooks::Error as WebhookError;

use super::error::ApiError;
use crate::app::SharedApp;
use crate::telemetry::{self, prometheus};
use crate::wire::code::Code;

/// How long the database may take to count what waits. The metrics are shown without it, because they are needed most
/// when the database is slow.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn show(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    let lag = counted(app.webhooks.fan_out_lag());
    let (lag, pending) = tokio::join!(lag, counted(app.webhooks.pending()));
    lag.into_iter().for_each(telemetry::fan_out_lag);
    pending.into_iter().for_each(telemetry::deliveries_pending);
    match prometheus::render().await {
        Some(Ok(text)) => {
            Ok(([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response())
        }
        Some(Err(error)) => Err(ApiError::internal(&error)),
        None => Err(ApiError::new(
            Code::NotFound,
            "the program that this server is a part of has its own recorder of metrics, or none",
        )),
    }
}

/// What the database counts; `None` if it does not work, or is slow. Then the metric stays as it was.
async fn counted<T>(count: impl Future<Output = Result<T, WebhookError>>) -> Option<T> {
    match tokio::time::timeout(DATABASE_TIMEOUT, count).await {
        Ok(Ok(counted)) => Some(counted),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "what waits in the metrics is an earlier count");
            None
        }
        Err(_) => {
            tracing::debug!("what waits in the metrics is an earlier count: the database is slow");
            None
        }
    }
}
