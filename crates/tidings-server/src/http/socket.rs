//! The server's half of a WebSocket.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as Violation, Message};

use crate::connections::{IdleSocket, Progress, Transport};

/// Largest frame that a client may send: an acknowledgement is under a hundred bytes.
const MAX_FRAME_BYTES: usize = 4096;

/// Most frames of clients are shorter. The library's default would be 128 KiB.
pub(super) const READ_BUFFER_BYTES: usize = 128;

/// Frames are collected up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// The server's half of a WebSocket, while it reads.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: WebSocketStream<Transport>,
    /// Bytes that were read before.
    before: u64,
    /// Least bytes that the messages can have had that were given.
    given: u64,
}

impl Socket {
    /// `read` are bytes that have been read of the connection.
    pub(crate) async fn new(transport: Transport, read: &[u8]) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES);
        let before = read.len() as u64;
        let inner = WebSocketStream::from_partially_read(
            transport,
            read.to_vec(),
            Role::Server,
            Some(config),
        );
        Self {
            inner: inner.await,
            before,
            given: 0,
        }
    }

    /// The next message; `None` at the end.
    ///
    /// Cancel safe: a dropped call takes no message.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Violation>> {
        let next = self.inner.next().await;
        if let Some(Ok(message)) = &next {
            self.given += least_bytes(message.len());
        }
        next
    }

    /// Whether nothing was read that was not given. A message that had more bytes than it needs, such as several
    /// frames, counts as not given for ever.
    pub(crate) fn is_settled(&self) -> bool {
        self.before + self.inner.get_ref().received() == self.given
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(self.inner.get_ref().progress())
    }

    /// Writes a message, and all before it.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), Violation> {
        self.inner.send(message).await
    }

    /// Takes a message, and writes it with others.
    pub(crate) async fn feed(&mut self, message: Message) -> Result<(), Violation> {
        self.inner.feed(message).await
    }

    /// Writes all messages.
    pub(crate) async fn flush(&mut self) -> Result<(), Violation> {
        self.inner.flush().await
    }

    /// Ends the connection of a client whose last frame was not read to its end.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.inner.get_ref().finish().await
    }

    /// The connection while nothing is read. The socket must be settled, and all messages written.
    ///
    /// # Errors
    ///
    /// The runtime cannot give it up.
    pub(crate) fn rest(self) -> io::Result<IdleSocket> {
        IdleSocket::new(self.inner.into_inner())
    }
}

/// The least bytes that a message of a client takes
/// ([RFC 6455, section 5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
fn least_bytes(payload: usize) -> u64 {
    let head = match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    let mask = 4;
    (head + mask + payload) as u64
}

/// A text as the frame of a server.
pub(crate) fn text_frame(text: String) -> Bytes {
    frame(Frame::message(text, OpCode::Data(Data::Text), true))
}

/// A ping without a payload, as the frame of a server.
pub(crate) fn ping_frame() -> Bytes {
    frame(Frame::ping(Bytes::new()))
}

fn frame(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing into memory does not fail.
    let _infallible = frame.format(&mut bytes);
    bytes.into()
}

/// Whether bytes of a client are a pong for the ping without a payload, and nothing else.
pub(crate) fn is_pong(bytes: &[u8]) -> bool {
    const FINAL: u8 = 0x80;
    const MASKED: u8 = 0x80;
    let pong = FINAL | u8::from(OpCode::Control(Control::Pong));
    matches!(*bytes, [first, MASKED, _, _, _, _] if first == pong)
}
