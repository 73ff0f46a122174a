//! The connection of a response that has left the HTTP library.

use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, ReadBuf};

use super::transport::Transport;
use super::unread::Unread;

/// Bytes around a chunk: its size, and two ends of lines.
const MAX_CHUNK_FRAME: usize = 2 * size_of::<usize>() + 4;

/// The connection of a response that has left the HTTP library. It frames the parts of the body as HTTP asks for.
#[derive(Debug)]
pub(crate) struct StreamSocket {
    transport: Transport,
    is_chunked: bool,
    /// Of the body of the request, if there is any.
    unread: Option<Unread>,
}

impl StreamSocket {
    pub(super) fn new(transport: Transport, is_chunked: bool, unread: Unread) -> Self {
        Self {
            transport: transport.left(),
            is_chunked,
            unread: unread.is_some().then_some(unread),
        }
    }

    /// Whether each part of the body is a chunk with its length.
    pub(crate) fn is_chunked(&self) -> bool {
        self.is_chunked
    }

    /// A part of the body as it goes over the connection.
    pub(crate) fn framed(&self, part: String) -> String {
        if !self.is_chunked {
            return part;
        }
        let mut chunk = String::with_capacity(part.len() + MAX_CHUNK_FRAME);
        // Writing into memory does not fail.
        let _infallible = write!(chunk, "{:x}\r\n{part}\r\n", part.len());
        chunk
    }

    /// Writes what the operating system takes at once. Returns how many bytes that are.
    pub(crate) async fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = poll_fn(|context| {
            let polled = self.transport.poll_write_some(context, bytes);
            Poll::Ready(if let Poll::Ready(written) = polled {
                written
            } else {
                Ok(0)
            })
        });
        written.await
    }

    /// Writes the bytes. Returns when the operating system has taken them.
    ///
    /// A dropped call may have written half of them: nothing can be written after that.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = poll_fn(|context| self.transport.poll_write_some(context, bytes));
            bytes = match write.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => &bytes[written..],
            };
        }
        Ok(())
    }

    /// Ends the body and the connection.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        if self.is_chunked {
            self.write(b"0\r\n\r\n").await?;
        }
        self.transport.shutdown()?;
        if let Some(unread) = &self.unread {
            unread.discard(self.transport.socket()).await;
        }
        Ok(())
    }

    /// Ready when the client has closed the connection, or its sending half only: the two look the same
    /// until something is written. Never ready if bytes of the client are unread.
    pub(crate) fn poll_client_has_ended(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut first = [0];
        let peeked = self
            .transport
            .socket()
            .poll_peek(context, &mut ReadBuf::new(&mut first));
        match ready!(peeked) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// Waits until the operating system reports that the connection is broken. After the client has ended, that is
    /// when something was written for it, unless it has closed its sending half only.
    pub(crate) async fn is_broken(&self) {
        // An error of the call means the same for the stream: nothing more can be sent.
        let _broken = self.transport.socket().ready(Interest::ERROR).await;
    }
}
