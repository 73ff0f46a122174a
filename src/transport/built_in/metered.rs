use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection as Describe};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connections::{Connection, MAX_READ};

/// A TCP connection that ends when it is flooded, and when it is one idle connection too many.
#[derive(Debug)]
pub(super) struct Metered {
    stream: TcpStream,
    connection: Connection,
    /// Whether a proxy is at the other end, which wants the whole URL of a request.
    is_proxied: bool,
}

/// The other side sends more than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_READ} bytes in response to one request")]
pub(super) struct Flooded;

impl Metered {
    pub(super) fn new(stream: TcpStream, connection: Connection) -> Self {
        Self {
            stream,
            connection,
            is_proxied: false,
        }
    }

    pub(super) fn proxied(mut self) -> Self {
        self.is_proxied = true;
        self
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.is_flooded() {
            return Poll::Ready(Err(io::Error::other(Flooded)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_pending() {
            // Before the look: a decision that is made meanwhile wakes the reader.
            self.connection.set_reader(context.waker());
            if self.connection.must_close() {
                // The end of the stream.
                return Poll::Ready(Ok(()));
            }
        }
        self.connection.add_read(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Describe for Metered {
    fn connected(&self) -> Connected {
        // Nothing else about it: each fact is copied for each request.
        let connected = Connected::new().proxy(self.is_proxied);
        connected.extra(self.connection.clone())
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.connection.closed();
    }
}
