//! What an answer, or the lack of one, means for its delivery. Pure functions.

mod retry_after;

use http::StatusCode;
use serde::{Deserialize, Serialize};

pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after};

/// What one attempt means for its delivery.
///
/// | answer | verdict |
/// |---|---|
/// | 2xx | delivered |
/// | 408, 425, 429, 5xx, and numbers beyond 599 | retryable |
/// | 410 | gone |
/// | other 4xx, 3xx, 1xx | permanent |
///
/// A redirect is never followed: it would carry a signed body to an address that nobody checked.
/// It is permanent because the same URL will answer the same until its owner changes it; the
/// attempt keeps the `location`. Numbers beyond 599 count as 500, as [RFC 9110] asks of clients.
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#section-15
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The endpoint accepted the message.
    Delivered,
    /// The cause is transient: another attempt may succeed.
    Retryable,
    /// Another attempt would fail the same way.
    Permanent,
    /// The endpoint says that it does not exist any more: it should get no further messages.
    Gone,
}

impl Verdict {
    /// The meaning of a status.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Delivered,
            408 | 425 | 429 | 500.. => Self::Retryable,
            410 => Self::Gone,
            _ => Self::Permanent,
        }
    }
}

/// Why an attempt brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection, TLS included, was there in time.
    #[error("the connection took too long")]
    ConnectTimeout,
    /// The request was sent, and no status came in time.
    #[error("the answer took too long")]
    ResponseTimeout,
    /// The name has no address, or could not be looked up.
    #[error("the name could not be resolved")]
    Dns,
    /// The handshake failed: an expired, unknown or misnamed certificate, or no TLS at all.
    #[error("TLS failed")]
    Tls,
    /// Nobody listens.
    #[error("the connection was refused")]
    Refused,
    /// The connection failed in another way before the request was sent.
    #[error("the connection failed")]
    Connect,
    /// The connection ended before the answer.
    #[error("the connection was lost")]
    Reset,
    /// The answer was not HTTP, or too large to be taken as such.
    #[error("the answer is not valid HTTP")]
    Protocol,
    /// An HTTP client of the caller's own followed a redirect, so that what answered is not the
    /// endpoint.
    #[error("a redirect was followed")]
    Redirected,
    /// The address is one that the policy does not allow.
    #[error("the address is not allowed")]
    BlockedAddress,
    /// The request could not be made from its parts.
    #[error("the request is invalid")]
    InvalidRequest,
}

impl ErrorKind {
    /// Whether another attempt may succeed.
    pub fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::Redirected | Self::BlockedAddress | Self::InvalidRequest
        )
    }

    /// Whether it shows that no connection can be made, so that the address may be out of date.
    pub(crate) fn is_connect(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout | Self::Tls | Self::Refused | Self::Connect
        )
    }

    /// One word for metrics and traces, the same as the serialized form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Redirected => "redirected",
            Self::BlockedAddress => "blocked_address",
            Self::InvalidRequest => "invalid_request",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_verdict() {
        for code in 100..1000 {
            let expected = match code {
                200..=299 => Verdict::Delivered,
                408 | 425 | 429 => Verdict::Retryable,
                410 => Verdict::Gone,
                100..=199 | 300..=499 => Verdict::Permanent,
                _ => Verdict::Retryable,
            };
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(Verdict::of_status(status), expected, "{code}");
        }
    }

    #[test]
    fn the_word_of_a_kind_is_its_serialized_form() {
        for kind in [
            ErrorKind::ConnectTimeout,
            ErrorKind::ResponseTimeout,
            ErrorKind::Dns,
            ErrorKind::Tls,
            ErrorKind::Refused,
            ErrorKind::Connect,
            ErrorKind::Reset,
            ErrorKind::Protocol,
            ErrorKind::Redirected,
            ErrorKind::BlockedAddress,
            ErrorKind::InvalidRequest,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
