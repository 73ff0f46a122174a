//! Headers as databases store them: a JSON object.

use crate::{Error, Headers, Result};

/// The stored form; `None` for no headers.
pub(super) fn encode(headers: &Headers) -> Result<Option<String>> {
    if headers.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(headers)
        .map(Some)
        .map_err(Error::backend)
}

/// Reads the stored form. Empty bytes are no headers.
pub(super) fn decode(stored: Option<&[u8]>) -> Result<Headers> {
    match stored {
        Some(json) if !json.is_empty() => serde_json::from_slice(json).map_err(Error::backend),
        _ => Ok(Headers::new()),
    }
}
