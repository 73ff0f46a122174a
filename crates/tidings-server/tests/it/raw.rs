//! Clients that do by hand what libraries would not do.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Server, soon};

/// The server's address.
pub(crate) fn address(server: &Server) -> &str {
    server.url.strip_prefix("http://").unwrap()
}

/// Connects, with a small buffer for what is not read.
pub(crate) async fn connect(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket
        .connect(address(server).parse().unwrap())
        .await
        .unwrap()
}

/// Opens an event stream and reads nothing of it.
pub(crate) async fn unread_events(server: &Server, path: &str) -> TcpStream {
    let mut stream = connect(server).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", address(server));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Sends the first lines of a request as they are, and gives the head of the response.
pub(crate) async fn ask(server: &Server, lines: &str) -> String {
    let mut stream = connect(server).await;
    let head = format!("{lines}Host: {}\r\n\r\n", address(server));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(soon("the response", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(response).unwrap()
}

/// What a WebSocket sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(Value),
    Ping,
    Pong,
    Close(u16),
}

/// A WebSocket that replies to nothing by itself.
pub(crate) struct RawSocket(pub(crate) TcpStream);

impl RawSocket {
    pub(crate) async fn open(server: &Server, path: &str) -> Self {
        let mut stream = connect(server).await;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            address(server)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\n") {
            reply.push(soon("the upgrade", stream.read_u8()).await.unwrap());
        }
        assert!(reply.starts_with(b"HTTP/1.1 101"), "{reply:?}");
        Self(stream)
    }

    /// The next frame; `None` when the connection has ended without a close.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        soon("the next frame", self.read()).await.ok()
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let opcode = self.0.read_u8().await? & 0x0f;
        let length = match self.0.read_u8().await? {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await?;
        Ok(match opcode {
            1 => Frame::Text(serde_json::from_slice(&payload).unwrap()),
            8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
            9 => Frame::Ping,
            10 => Frame::Pong,
            other => panic!("opcode {other}"),
        })
    }

    /// Reads up to the text frame of this event.
    pub(crate) async fn until(&mut self, event: &str) {
        loop {
            match self.next().await {
                Some(Frame::Text(text)) if text["event"] == event => return,
                Some(_) => {}
                None => panic!("the connection ended before {event}"),
            }
        }
    }

    /// Reads up to the close, and gives its code.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some(Frame::Close(code)) => return code,
                Some(_) => {}
                None => panic!("the connection ended without a close"),
            }
        }
    }

    /// Sends a frame, masked by zeros.
    pub(crate) async fn send(&mut self, first_byte: u8, payload: &[u8]) {
        self.0
            .write_all(&masked(first_byte, payload))
            .await
            .unwrap();
    }
}

/// A frame of a client, masked by zeros.
pub(crate) fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 0x7e);
            let length = u16::try_from(payload.len()).unwrap();
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Reads until the connection ends, or has been silent for a while and the server's side has nothing left
/// to send.
pub(crate) async fn read_what_is_there(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let silence = Duration::from_millis(700);
    loop {
        match tokio::time::timeout(silence, stream.read_buf(&mut read)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return read,
            Err(_) if queued(stream) == 0 => return read,
            Err(_) => {}
        }
    }
}

/// How many bytes the operating system has of the server for this client, sent or not, that have not
/// arrived.
fn queued(stream: &TcpStream) -> u64 {
    let client = stream.local_addr().unwrap().port();
    let server = stream.peer_addr().unwrap().port();
    let (from, to) = (format!(":{server:04X}"), format!(":{client:04X}"));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = sockets.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_ours = fields[1].ends_with(&from) && fields[2].ends_with(&to);
        is_ours.then(|| fields[4].to_owned())
    });
    ours.map_or(0, |queues| {
        let (unsent, _) = queues.split_once(':').unwrap();
        u64::from_str_radix(unsent, 16).unwrap()
    })
}

/// Waits until the server can write no more to this client: what is queued for it stays the same, at several
/// looks because the machine may have stood still between two of them.
pub(crate) async fn is_full(stream: &TcpStream) {
    soon("a full connection", async {
        let (mut before, mut equal) = (0, 0);
        while equal < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = queued(stream);
            equal = if now > 0 && now == before {
                equal + 1
            } else {
                0
            };
            before = now;
        }
    })
    .await;
}
