//! The connection of a response that has left the HTTP library.

use std::fmt::Write;
use std::io;

use tokio::io::Interest;

use super::transport::Transport;
use super::unread::Unread;
use super::{IdleSocket, Progress};

/// Bytes around a chunk: its size, and two ends of lines.
const MAX_CHUNK_FRAME: usize = 2 * size_of::<usize>() + 4;

/// How HTTP frames the parts of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each is a chunk with its length.
    Chunked,
    /// Up to the end of the connection.
    Plain,
}

impl Framing {
    /// A part of the body as it goes over the connection.
    pub(crate) fn frame(self, part: String) -> String {
        if self == Self::Plain {
            return part;
        }
        let mut chunk = String::with_capacity(part.len() + MAX_CHUNK_FRAME);
        // Writing into memory does not fail.
        let _infallible = write!(chunk, "{:x}\r\n{part}\r\n", part.len());
        chunk
    }
}

/// The connection of a response that has left the HTTP library: an [`IdleSocket`], or a [`Transport`] when it has to be
/// waited for.
#[derive(Debug)]
pub(crate) struct StreamSocket<S> {
    socket: S,
    framing: Framing,
    /// Of the body of the request, if there is any.
    unread: Option<Unread>,
}

impl<S> StreamSocket<S> {
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    fn with<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<StreamSocket<T>> {
        Ok(StreamSocket {
            socket: change(self.socket)?,
            framing: self.framing,
            unread: self.unread,
        })
    }
}

impl StreamSocket<IdleSocket> {
    pub(crate) fn idle(&self) -> &IdleSocket {
        &self.socket
    }

    /// The connection as one that can be waited for.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch it.
    pub(crate) fn activate(self) -> io::Result<StreamSocket<Transport>> {
        self.with(IdleSocket::activate)
    }
}

impl StreamSocket<Transport> {
    pub(super) fn new(transport: Transport, framing: Framing, unread: Unread) -> Self {
        Self {
            socket: transport.leave(),
            framing,
            unread: unread.is_some().then_some(unread),
        }
    }

    pub(crate) fn progress(&self) -> &Progress {
        self.socket.progress()
    }

    /// Writes the bytes. Returns when the operating system has taken them.
    ///
    /// A dropped call may have written half of them: nothing can be written after that.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Ends the body and the connection.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            self.write(b"0\r\n\r\n").await?;
        }
        self.socket.shutdown()?;
        if let Some(unread) = &self.unread {
            unread.discard(self.socket.socket()).await;
        }
        Ok(())
    }

    /// Waits until the operating system reports that the connection is broken. After the client has ended, that is
    /// when something was written for it, unless it has closed its sending half only.
    pub(crate) async fn is_broken(&self) {
        // An error of the call means the same for the stream: nothing more can be sent.
        let _broken = self.socket.socket().ready(Interest::ERROR).await;
    }

    /// The connection while nothing waits for it.
    ///
    /// # Errors
    ///
    /// The runtime cannot give it up.
    pub(crate) fn rest(self) -> io::Result<StreamSocket<IdleSocket>> {
        self.with(IdleSocket::new)
    }
}
