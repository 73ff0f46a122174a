//! Where a stream starts, from the client's request.

use axum::http::HeaderMap;
use tidings_notify::{Since, wire};

use super::error::ApiError;
use super::extract::{Parameters, header_once};

/// Reads the `Last-Event-ID` header, and the parameters `last_event_id` and `since`. See [`wire::since`].
pub(crate) fn since(headers: &HeaderMap, parameters: &Parameters) -> Result<Since, ApiError> {
    let header = header_once(headers, "Last-Event-ID")?;
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    wire::since(
        header.as_deref(),
        parameters.text("last_event_id")?,
        parameters.text("since")?,
        Since::Now,
    )
    .map_err(|invalid| ApiError::invalid("since", invalid.to_string()))
}
