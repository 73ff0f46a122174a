//! A client that sees what is really on the wire.

use std::io;

use tidings_test_support::{Receiver, Script};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request with the body `hello`.
pub(crate) const HELLO: &str = "POST /hook HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";

pub(crate) struct Client<S> {
    socket: S,
}

/// A receiver with this script, and a client that has sent it [`HELLO`].
pub(crate) async fn hello(script: impl Into<Script>) -> (Receiver, Client<TcpStream>) {
    let receiver = Receiver::start(script).await.unwrap();
    let mut client = connect(&receiver).await;
    client.send(HELLO).await;
    (receiver, client)
}

pub(crate) async fn connect(receiver: &Receiver) -> Client<TcpStream> {
    Client::new(TcpStream::connect(receiver.address()).await.unwrap())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket }
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn read(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Expects exactly these bytes.
    pub(crate) async fn expect(&mut self, bytes: &str) {
        assert_eq!(self.read(bytes.len()).await, bytes);
    }

    /// Reads until the connection ends, in good order or not.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let ended = self.socket.read_to_end(&mut bytes).await;
        (bytes, ended.map(drop))
    }

    /// Expects these bytes and then the end in good order.
    pub(crate) async fn expect_last(&mut self, bytes: &str) {
        let (rest, ended) = self.rest().await;
        ended.unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), bytes);
    }

    /// Expects a reset without a byte before.
    pub(crate) async fn expect_reset(&mut self) {
        let (rest, ended) = self.rest().await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(rest.is_empty(), "{rest:?}");
    }
}
