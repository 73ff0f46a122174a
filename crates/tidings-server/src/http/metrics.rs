//! `GET /metrics`: the metrics of this process, for Prometheus.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::telemetry::prometheus;
use crate::wire::code::Code;

/// The text format of Prometheus.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn show() -> Result<Response, ApiError> {
    match prometheus::render().await {
        Some(Ok(text)) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Some(Err(error)) => Err(ApiError::internal(&error)),
        None => Err(ApiError::new(
            Code::NotFound,
            "the program that this server is a part of has its own recorder of metrics, or none",
        )),
    }
}
