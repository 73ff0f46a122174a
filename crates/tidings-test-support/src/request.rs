use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;

/// The head of a request, which is all that a [`Script`](crate::Script) decides on: its body may
/// never be read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Head {
    /// Which connection of the receiver it came on: 1, 2, 3 …
    pub connection: u64,
    /// The method.
    pub method: Method,
    /// The target as it was sent: path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl Head {
    /// The target without its query.
    pub fn path(&self) -> &str {
        match self.target.split_once('?') {
            Some((path, _query)) => path,
            None => &self.target,
        }
    }

    /// The first header of this name, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request that a receiver got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body without transfer coding; empty when the behaviour does not read it.
    pub body: Bytes,
    /// When it had been read, as far as the behaviour reads it.
    pub received_at: Instant,
}

impl Request {
    /// The first header of this name, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

/// A connection that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Which connection of the receiver it was: 1, 2, 3 …
    pub connection: u64,
    /// How many requests came on it, those included that broke off in the body.
    pub requests: u64,
    /// How many bytes it was sent, before encryption. The kernel took them; the sender need not
    /// have read them.
    pub bytes_sent: u64,
}

impl Closed {
    /// A connection on which nothing came to pass.
    pub(crate) fn unused(connection: u64) -> Self {
        Self {
            connection,
            requests: 0,
            bytes_sent: 0,
        }
    }
}
