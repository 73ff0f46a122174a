//! A socket that records its progress.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Handover, Progress};

/// A socket that records in its [`Progress`] what has been written to it. It is shared, so that handlers can
/// see when the client closes it.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Arc<TcpStream>,
    progress: Arc<Progress>,
    /// Not of a connection that has left the HTTP library.
    handover: Option<Arc<Handover>>,
}

impl Transport {
    pub(super) fn new(
        socket: Arc<TcpStream>,
        progress: Arc<Progress>,
        handover: Arc<Handover>,
    ) -> Self {
        Self {
            socket,
            progress,
            handover: Some(handover),
        }
    }

    /// The same for a connection that has left the HTTP library.
    pub(crate) fn left(self) -> Self {
        Self {
            handover: None,
            ..self
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ends the server's half of the connection.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write)
    }

    /// Writes when the socket takes bytes. Returns how many it has taken.
    pub(super) fn poll_write_some(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |socket| socket.try_write(bytes))
    }

    fn poll_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.socket.poll_write_ready(context)?.is_pending() {
                self.progress.wrote(true);
                return Poll::Pending;
            }
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.progress.wrote(false);
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read_buf(buffer) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    self.progress.receive();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_some(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What the socket has taken needs no flush.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.wrote(false);
        if let Some(handover) = &self.handover {
            handover.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}
