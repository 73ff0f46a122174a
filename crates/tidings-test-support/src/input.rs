//! The receiving half of a connection: requests, each within bounds.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head, and longest line between chunks, that is read.
const MAX_HEAD: usize = 64 * 1024;

/// Most header lines that are read.
const MAX_HEADERS: usize = 128;

/// Longest body that is read.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection ended or broke.
    Gone,
    /// The request is not HTTP, or larger than a test needs: the status to reply with, and why.
    Refused(StatusCode, &'static str),
}

const BODY_TOO_LONG: ReadError = ReadError::Refused(
    StatusCode::PAYLOAD_TOO_LARGE,
    "expected a body of at most 16 MiB",
);

/// The first lines of a request, which has no number yet.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

#[derive(Debug)]
pub(crate) struct Input<R> {
    reader: R,
    /// What has arrived and is not used yet.
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// Reads up to the empty line.
    pub(crate) async fn head(&mut self) -> Result<Lines, ReadError> {
        loop {
            if let Some((length, lines)) = parse_head(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(lines);
            }
            if self.buffer.len() >= MAX_HEAD {
                return Err(ReadError::Refused(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "expected a head of at most 64 KiB",
                ));
            }
            self.receive().await?;
        }
    }

    /// Reads the body that the headers announce.
    pub(crate) async fn body(&mut self, headers: &HeaderMap) -> Result<Bytes, ReadError> {
        if headers.contains_key("transfer-encoding") {
            return self.chunks().await;
        }
        let Some(length) = headers.get("content-length") else {
            return Ok(Bytes::new());
        };
        let length: usize = length
            .to_str()
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(ReadError::Refused(
                StatusCode::BAD_REQUEST,
                "expected content-length: a number",
            ))?;
        if length > MAX_BODY {
            return Err(BODY_TOO_LONG);
        }
        self.take(length).await
    }

    /// Reads a chunked body (RFC 9112, section 7.1), without its extensions and trailers.
    async fn chunks(&mut self) -> Result<Bytes, ReadError> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
                .ok_or(ReadError::Refused(
                    StatusCode::BAD_REQUEST,
                    "expected the size of a chunk",
                ))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body.freeze());
            }
            if size > MAX_BODY - body.len() {
                return Err(BODY_TOO_LONG);
            }
            body.extend_from_slice(&self.take(size).await?);
            if !self.line().await?.is_empty() {
                return Err(ReadError::Refused(
                    StatusCode::BAD_REQUEST,
                    "expected a line break after a chunk",
                ));
            }
        }
    }

    /// Waits until the other side lets go of the connection. What arrives meanwhile is kept for the
    /// next request, as far as there is room.
    pub(crate) async fn left(&mut self) {
        while self.buffer.len() < MAX_HEAD {
            if self.receive().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, ReadError> {
        while self.buffer.len() < length {
            self.receive().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> Result<Bytes, ReadError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() >= MAX_HEAD {
                return Err(ReadError::Refused(
                    StatusCode::BAD_REQUEST,
                    "expected a line of at most 64 KiB",
                ));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), ReadError> {
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(ReadError::Gone),
        }
    }
}

/// The lines of a head and its length, or nothing while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Lines)>, ReadError> {
    const NOT_HTTP: ReadError =
        ReadError::Refused(StatusCode::BAD_REQUEST, "expected an HTTP/1.1 request");

    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(ReadError::Refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "expected at most 128 headers",
            ));
        }
        Err(_) => return Err(NOT_HTTP),
    };
    let method = request.method.unwrap_or_default();
    let mut lines = Lines {
        method: method.parse().map_err(|_| NOT_HTTP)?,
        target: request.path.unwrap_or_default().to_owned(),
        headers: HeaderMap::with_capacity(request.headers.len()),
    };
    for header in request.headers.iter() {
        let name: HeaderName = header.name.parse().map_err(|_| NOT_HTTP)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| NOT_HTTP)?;
        lines.headers.append(name, value);
    }
    Ok(Some((length, lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Lines, Bytes), ReadError> {
        let mut input = Input::new(bytes);
        let lines = input.head().await?;
        let body = input.body(&lines.headers).await?;
        Ok((lines, body))
    }

    #[tokio::test]
    async fn a_body_has_the_length_that_its_head_announces() {
        let bytes = b"POST /a?b HTTP/1.1\r\nX: 1\r\nx: 2\r\nContent-Length: 3\r\n\r\nabcdef";
        let (lines, body) = read(bytes).await.unwrap();
        assert_eq!(
            (lines.method, lines.target.as_str()),
            (Method::POST, "/a?b")
        );
        assert_eq!(lines.headers.get_all("x").iter().count(), 2);
        assert_eq!(body, "abc");
    }

    #[tokio::test]
    async fn chunks_are_joined_and_their_extensions_skipped() {
        let bytes = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
            3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\ntrailer: 1\r\n\r\n";
        assert_eq!(read(bytes).await.unwrap().1, "abc0123456789");
    }

    #[tokio::test]
    async fn what_is_not_http_or_too_large_is_refused_with_a_reason() {
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "x: 1\r\n".repeat(MAX_HEADERS + 1)
        );
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (bytes, status) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\ncontent-length: 16777217\r\n\r\n", 413),
            (&long, 431),
            (&many, 431),
            (&format!("{chunked}x\r\n"), 400),
            (&format!("{chunked}1\r\naa\r\n"), 400),
            (&format!("{chunked}ffffffffffffffff\r\n"), 413),
        ] {
            let refused = read(bytes.as_bytes()).await.unwrap_err();
            assert!(
                matches!(refused, ReadError::Refused(given, _) if given == status),
                "{bytes:.60}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_is_no_request() {
        for bytes in ["", "GET", "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab"] {
            let gone = read(bytes.as_bytes()).await.unwrap_err();
            assert!(matches!(gone, ReadError::Gone), "{bytes}: {gone:?}");
        }
    }
}
