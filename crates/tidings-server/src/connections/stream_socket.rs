//! The connection of a response that has left the HTTP library.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWriteExt, Interest, ReadBuf};

use super::transport::Transport;
use super::unread::Unread;

/// The connection of a response that has left the HTTP library. It frames the parts of the body as HTTP asks for.
#[derive(Debug)]
pub(crate) struct StreamSocket {
    transport: Transport,
    is_chunked: bool,
    /// Of the body of the request.
    unread: Unread,
}

impl StreamSocket {
    pub(super) fn new(transport: Transport, is_chunked: bool, unread: Unread) -> Self {
        Self {
            transport,
            is_chunked,
            unread,
        }
    }

    /// Writes a part of the body. Returns when the operating system has taken it.
    ///
    /// A dropped call may have written half of it: nothing can be written after that.
    pub(crate) async fn write(&mut self, part: Bytes) -> io::Result<()> {
        if !self.is_chunked {
            return self.transport.write_all(&part).await;
        }
        let size = format!("{:x}\r\n", part.len());
        let mut chunk = size.as_bytes().chain(part).chain(&b"\r\n"[..]);
        self.transport.write_all_buf(&mut chunk).await
    }

    /// Ends the body and the connection.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        if self.is_chunked {
            self.transport.write_all(b"0\r\n\r\n").await?;
        }
        self.transport.shutdown().await?;
        self.unread.discard(self.transport.socket()).await;
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
