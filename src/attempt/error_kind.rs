use serde::{Deserialize, Serialize};

/// Why an attempt got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection, TLS included, was not ready in time.
    #[error("the connection was not ready in time")]
    ConnectTimeout,
    /// The request was sent, and no status arrived in time.
    #[error("the response did not arrive in time")]
    ResponseTimeout,
    /// The name server replied that the name has no address, or that it cannot find out.
    #[error("the host name could not be resolved")]
    Dns,
    /// The handshake failed: an expired, unknown or misnamed certificate, or no TLS at all.
    #[error("the TLS handshake failed")]
    Tls,
    /// The host refused the connection.
    #[error("the connection was refused")]
    Refused,
    /// The connection failed in another way before the request was sent, for instance because no route leads to
    /// the address.
    #[error("the connection failed")]
    Connect,
    /// The connection ended before the response.
    #[error("the connection was lost")]
    Reset,
    /// The response was not HTTP, or exceeded a limit.
    #[error("the response is not valid HTTP")]
    Protocol,
    /// An HTTP client that was handed in followed a redirect, so that the response is not the
    /// endpoint's.
    #[error("a redirect was followed")]
    Redirected,
    /// The address policy does not allow the address or the port.
    #[error("the address is not allowed")]
    BlockedAddress,
    /// The request could not be made from its parts.
    #[error("the request is invalid")]
    InvalidRequest,
    /// This machine is in trouble, not the endpoint: it has no free file descriptor or port, a
    /// network that is down, no name server or proxy that replies, no password that the proxy takes, no
    /// certificate authorities, or a signer that failed.
    ///
    /// It says nothing about the endpoint and opens no circuit. A name server that does not reply
    /// counts as local only while it replies to no other lookup either.
    #[error("the sender's machine could not make the request")]
    Local,
}

impl ErrorKind {
    /// Every kind, in order.
    pub(crate) const ALL: [Self; 12] = [
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::Dns,
        Self::Tls,
        Self::Refused,
        Self::Connect,
        Self::Reset,
        Self::Protocol,
        Self::Redirected,
        Self::BlockedAddress,
        Self::InvalidRequest,
        Self::Local,
    ];

    /// Whether another attempt may succeed.
    pub fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::Redirected | Self::BlockedAddress | Self::InvalidRequest
        )
    }

    /// Whether it is the trouble of this machine, and says nothing about the endpoint.
    pub fn is_local(self) -> bool {
        self == Self::Local
    }

    /// Whether no connection could be made, so that the address may be out of date.
    pub(crate) fn is_connect(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout | Self::Tls | Self::Refused | Self::Connect
        )
    }

    /// Whether it can happen after the request began to leave.
    pub(crate) fn may_follow_the_request(self) -> bool {
        matches!(
            self,
            Self::ResponseTimeout | Self::Reset | Self::Protocol | Self::Redirected
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
            Self::Local => "local",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_kind_is_its_serialized_form() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn what_cannot_succeed_later_is_not_retryable() {
        let permanent: Vec<_> = (ErrorKind::ALL.into_iter())
            .filter(|kind| !kind.is_retryable())
            .map(ErrorKind::as_str)
            .collect();
        assert_eq!(
            permanent,
            ["redirected", "blocked_address", "invalid_request"]
        );
        let local: Vec<_> = ErrorKind::ALL
            .into_iter()
            .filter(|kind| kind.is_local())
            .collect();
        assert_eq!(local, [ErrorKind::Local]);
    }

    #[test]
    fn a_failure_happens_before_the_request_leaves_or_may_follow_it() {
        let words = |is: fn(ErrorKind) -> bool| -> Vec<_> {
            let kinds = ErrorKind::ALL.into_iter().filter(|kind| is(*kind));
            kinds.map(ErrorKind::as_str).collect()
        };
        let connecting = words(ErrorKind::is_connect);
        assert_eq!(connecting, ["connect_timeout", "tls", "refused", "connect"]);
        let following = words(ErrorKind::may_follow_the_request);
        let expected = ["response_timeout", "reset", "protocol", "redirected"];
        assert_eq!(following, expected);
    }
}
