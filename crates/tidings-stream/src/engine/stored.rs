//! Messages as databases store them: headers are a JSON object, times milliseconds.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{Error, Headers, Message, MessageId, NewMessage, Result, StreamName};

/// The stored form of headers; `None` for no headers.
pub(super) fn encode(headers: &Headers) -> Result<Option<String>> {
    if headers.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(headers)
        .map(Some)
        .map_err(Error::backend)
}

/// Reads the stored form of headers. Empty bytes are no headers.
pub(super) fn decode(headers: Option<&[u8]>) -> Result<Headers> {
    match headers {
        Some(json) if !json.is_empty() => serde_json::from_slice(json).map_err(Error::backend),
        _ => Ok(Headers::new()),
    }
}

/// A message of a stream. Its attempt is 0: no group was asked.
pub(super) fn message(
    stream: &StreamName,
    number: u64,
    created_at: i64,
    headers: Option<&[u8]>,
    payload: impl Into<Bytes>,
) -> Result<Message> {
    let content = NewMessage::new(payload).with_headers(decode(headers)?);
    let created_at = Timestamp::from_millisecond(created_at).map_err(Error::backend)?;
    let id = MessageId::from_u64(number);
    Ok(Message::new(id, stream.clone(), content, created_at, 0))
}
