use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::Gate;

/// A complete HTTP reply.
///
/// Headers go out exactly as given, in order and unchecked. `content-length` is added unless it is
/// among them, so that a reply can lie about its length.
#[derive(Debug, Clone)]
#[must_use]
pub struct Reply {
    pub(crate) status: StatusCode,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
    pub(crate) delay: Duration,
    pub(crate) gate: Option<Gate>,
    pub(crate) ending: Ending,
}

/// What becomes of the connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    KeepAlive,
    Close,
    SilentClose,
}

impl Reply {
    /// A reply with this status and an empty body, after which the connection stays open.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            gate: None,
            ending: Ending::KeepAlive,
        }
    }

    /// `200 OK`.
    pub fn ok() -> Self {
        Self::new(StatusCode::OK)
    }

    /// `410 Gone`: the receiver wants no more, ever.
    pub fn gone() -> Self {
        Self::new(StatusCode::GONE)
    }

    /// A redirect: a status of the 3xx kind and a `location`.
    pub fn redirect(status: StatusCode, location: impl Into<Bytes>) -> Self {
        Self::new(status).with_header("location", location)
    }

    /// `429 Too Many Requests` with a `retry-after`, whatever its value.
    pub fn retry_after(value: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", value)
    }

    /// Adds a header line, even one that HTTP forbids.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Replies only this long after the request was read.
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Replies only once the gate is open.
    pub fn after(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Announces `connection: close`, and closes.
    pub fn with_close(mut self) -> Self {
        self.ending = Ending::Close;
        self
    }

    /// Closes after the reply without having announced it, so that the sender keeps a connection
    /// in its pool that is dead.
    pub fn with_silent_close(mut self) -> Self {
        self.ending = Ending::SilentClose;
        self
    }

    /// The bytes that reply to a request of this method.
    pub(crate) fn to_bytes(&self, method: &Method) -> Bytes {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let status_line = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        let mut bytes = status_line.into_bytes();
        for (name, value) in &self.headers {
            line(&mut bytes, name, value);
        }
        // RFC 9110, section 8.6: neither 1xx nor 204 may have a length.
        let may_have_length = !self.status.is_informational() && self.status != 204;
        if may_have_length && !self.has_header("content-length") {
            line(
                &mut bytes,
                "content-length",
                self.body.len().to_string().as_bytes(),
            );
        }
        if self.ending == Ending::Close && !self.has_header("connection") {
            line(&mut bytes, "connection", b"close");
        }
        bytes.extend_from_slice(b"\r\n");
        if may_have_length && method != Method::HEAD {
            bytes.extend_from_slice(&self.body);
        }
        bytes.into()
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
    }
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply, method: &Method) -> String {
        String::from_utf8(reply.to_bytes(method).into()).unwrap()
    }

    #[test]
    fn a_length_is_added_where_http_wants_one() {
        let reply = Reply::ok().with_header("X", "1").with_body("hi");
        assert_eq!(
            text(&reply, &Method::POST),
            "HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 2\r\n\r\nhi"
        );
        assert_eq!(
            text(&reply, &Method::HEAD),
            "HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 2\r\n\r\n"
        );
        assert_eq!(
            text(
                &Reply::new(StatusCode::NO_CONTENT).with_body("hi"),
                &Method::POST
            ),
            "HTTP/1.1 204 No Content\r\n\r\n"
        );
    }

    #[test]
    fn a_reply_can_lie() {
        let reply = Reply::ok()
            .with_header("Content-Length", "9")
            .with_header("Connection", "keep-alive")
            .with_body("hi")
            .with_close();
        assert_eq!(
            text(&reply, &Method::POST),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\nhi"
        );
    }
}
