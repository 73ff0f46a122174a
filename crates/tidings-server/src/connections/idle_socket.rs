//! The connection of a stream while nothing of the runtime waits for it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::task::Poll;

use super::transport::Transport;

/// The connection of a stream while nothing of the runtime waits for it. Calls do not block.
#[derive(Debug)]
pub(crate) struct IdleSocket(TcpStream);

impl IdleSocket {
    /// # Errors
    ///
    /// The runtime cannot give up the socket.
    pub(crate) fn new(transport: Transport) -> io::Result<Self> {
        transport.into_std().map(Self)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.0
    }

    /// Writes what the operating system takes at once. Returns how many bytes that are.
    pub(crate) fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.0).write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Reads what has arrived, if anything has. Zero bytes are the end.
    pub(crate) fn read_at_once(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        arrived((&self.0).read(buffer))
    }

    /// Whether the client has closed the connection, or its sending half only: the two look the same until something
    /// is written. Not if bytes of the client are unread.
    pub(crate) fn client_has_ended(&self) -> bool {
        matches!(arrived(self.0.peek(&mut [0])), Poll::Ready(Ok(0) | Err(_)))
    }

    /// The connection as one that the runtime can wait for.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch it.
    pub(crate) fn activate(self) -> io::Result<Transport> {
        let socket = tokio::net::TcpStream::from_std(self.0)?;
        Ok(Transport::left(socket, Arc::default()))
    }
}

fn arrived(read: io::Result<usize>) -> Poll<io::Result<usize>> {
    match read {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        read => Poll::Ready(read),
    }
}
