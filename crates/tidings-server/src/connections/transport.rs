//! A socket that records its progress.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::unread::discard;
use super::{Handover, Progress};

/// A socket that records in its [`Progress`] what has been written to it.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
    progress: Arc<Progress>,
    /// Not of a connection that has left the HTTP library.
    handover: Option<Arc<Handover>>,
    /// Bytes that were read.
    received: u64,
}

impl Transport {
    pub(super) fn new(socket: TcpStream, progress: Arc<Progress>, handover: Arc<Handover>) -> Self {
        Self {
            socket,
            progress,
            handover: Some(handover),
            received: 0,
        }
    }

    /// Of a connection that has left the HTTP library.
    pub(super) fn left(socket: TcpStream, progress: Arc<Progress>) -> Self {
        Self {
            socket,
            progress,
            handover: None,
            received: 0,
        }
    }

    /// The same after the connection has left the HTTP library.
    pub(crate) fn leave(self) -> Self {
        Self::left(self.socket, self.progress)
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// How many bytes were read since the connection left.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The socket, which the runtime no longer watches.
    pub(super) fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.socket.into_std()
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ends the server's half of the connection.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.socket).shutdown(Shutdown::Write)
    }

    /// Ends the server's half of the connection, and throws away what the client still sends, within bounds: otherwise
    /// the operating system would reset the connection, and the client could lose what was written last.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.shutdown()?;
        discard(&self.socket).await;
        Ok(())
    }

    /// Writes all bytes.
    ///
    /// A dropped call may have written half of them.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = poll_fn(|context| self.poll_write_some(context, bytes));
            bytes = match write.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => &bytes[written..],
            };
        }
        Ok(())
    }

    /// Writes when the socket takes bytes. Returns how many it has taken.
    fn poll_write_some(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(context, |socket| socket.try_write(bytes))
    }

    fn poll_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.socket.poll_write_ready(context)?.is_pending() {
                self.progress.waits();
                return Poll::Pending;
            }
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.progress.wrote(*written.as_ref().unwrap_or(&0));
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match self.socket.try_read_buf(buffer) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(count) => {
                    self.received += count as u64;
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
        self.progress.flushed();
        if let Some(handover) = &self.handover {
            handover.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}
