//! Where a stream starts, from the client's request.

use std::borrow::Cow;

use axum::http::HeaderMap;
use tidings_notify::{Since, wire};

use super::error::ApiError;
use super::extract::{GIVEN_TWICE, Parameters, header_once};

/// The parameters in which libraries that stand in for `EventSource` send the header, which they cannot set.
pub(crate) const OF_POLYFILLS: [&str; 3] = ["lastEventId", "last-event-id", "lastEventID"];

/// Reads the `Last-Event-ID` header, and the parameters `last_event_id` and `since`. A parameter of
/// [`OF_POLYFILLS`] counts as the header if that is missing. See [`wire::since`].
pub(crate) fn since(headers: &HeaderMap, parameters: &Parameters) -> Result<Since, ApiError> {
    let header = header_once(headers, "Last-Event-ID")?;
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let sent = match header {
        Some(header) => Some(header),
        None => in_parameter(parameters)?.map(Cow::Borrowed),
    };
    wire::since(
        sent.as_deref(),
        parameters.text("last_event_id")?,
        parameters.text("since")?,
        Since::Now,
    )
    .map_err(|invalid| ApiError::invalid("since", invalid.to_string()))
}

/// The header as a parameter. In two spellings, it is refused: one of the two would be ignored.
fn in_parameter(parameters: &Parameters) -> Result<Option<&str>, ApiError> {
    let mut found = None;
    for name in OF_POLYFILLS {
        let id = parameters.text(name)?.filter(|id| !id.is_empty());
        match (found, id) {
            (Some(_), Some(_)) => return Err(ApiError::invalid(name, GIVEN_TWICE)),
            (None, id) => found = id,
            (Some(_), None) => {}
        }
    }
    Ok(found)
}
