//! What a request is called in the log and in its response.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

use crate::telemetry::traces::STREAM;

/// The header in which a caller may send the id, and gets it.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 128;

/// The id of a request: that of its caller, or a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestId {
    Sent(Arc<str>),
    /// A stream keeps it, so it is not a text.
    New([u8; 16]),
}

impl RequestId {
    /// The id that was sent if it is one, of 1 to 128 visible ASCII characters; otherwise a new one. A caller that
    /// sends something else may not know what its proxy does, so the request is not refused.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(NAME).iter();
        let only = match (sent.next(), sent.next()) {
            (Some(id), None) => id.to_str().ok(),
            _ => None,
        };
        let is_usable = |id: &&str| {
            (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match only.filter(is_usable) {
            Some(id) => Self::Sent(id.into()),
            None => Self::New(fastrand::u128(..).to_ne_bytes()),
        }
    }

    /// The span of what a stream does after the response to its request. A stream lasts, and the id takes less memory
    /// than the span of the request.
    pub(super) fn stream_span(&self) -> Span {
        tracing::error_span!(STREAM, request_id = %self)
    }

    pub(super) fn put_into(&self, headers: &mut HeaderMap) {
        // Every visible ASCII character may stand in a header.
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(NAME, value);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(id) => formatter.write_str(id),
            Self::New(id) => write!(formatter, "{:032x}", u128::from_ne_bytes(*id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sent: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for id in sent {
            headers.append(NAME, HeaderValue::from_bytes(id).unwrap());
        }
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn the_id_of_the_caller_counts_if_it_is_one() {
        let longest = [b'x'; MAX_LENGTH];
        for id in [
            &b"a"[..],
            b"0af7651916cd43dd8448eb211c80319c",
            b"{\"~!",
            &longest,
        ] {
            assert_eq!(of(&[id]).as_bytes(), id);
        }
        let long = [b'x'; MAX_LENGTH + 1];
        let wrong: [&[&[u8]]; 6] = [
            &[],
            &[b""],
            &[b"two words"],
            &[b"\xfc"],
            &[&long],
            &[b"a", b"a"],
        ];
        for sent in wrong {
            let made = of(sent);
            assert_eq!(made.len(), 32, "{made}");
            assert_ne!(made, of(sent));
        }
    }
}
