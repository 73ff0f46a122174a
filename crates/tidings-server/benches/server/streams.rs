//! Streams of events, and what arrives on them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Nothing that is measured takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many are opened at the same time.
const AT_ONCE: usize = 64;

/// A request for a user's stream of events.
pub(crate) fn events(user: &str) -> String {
    format!("GET /v1/users/{user}/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// A request for a user's WebSocket.
pub(crate) fn websocket(user: &str) -> String {
    format!(
        "GET /v1/users/{user}/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Sends a request, and reads until this text has arrived: the stream is live.
pub(crate) async fn open(address: &str, request: &str, until: &str) -> TcpStream {
    let opening = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        while find(&text, until.as_bytes()).is_none() {
            let read = socket.read_buf(&mut text).await.unwrap();
            assert_ne!(
                read,
                0,
                "the stream ended: {}",
                String::from_utf8_lossy(&text)
            );
        }
        socket
    };
    timeout(PATIENCE, opening).await.unwrap()
}

/// Opens one stream for each request.
pub(crate) async fn open_all(
    address: &str,
    requests: Vec<String>,
    until: &'static str,
) -> Vec<TcpStream> {
    let (mut opening, mut sockets) = (JoinSet::new(), Vec::with_capacity(requests.len()));
    for request in requests {
        if opening.len() == AT_ONCE {
            sockets.extend(opening.join_next().await.map(Result::unwrap));
        }
        let address = address.to_owned();
        opening.spawn(async move { open(&address, &request, until).await });
    }
    sockets.extend(opening.join_all().await);
    sockets
}

/// A payload that says when it was sent, in microseconds since the start.
pub(crate) fn payload(start: Instant) -> String {
    format!(
        r#"{{"at":{},"title":"An order was paid","body":"Three apples, 4.20"}}"#,
        start.elapsed().as_micros()
    )
}

/// Reads so many events, and returns how long each was under way.
pub(crate) async fn arrivals(mut socket: TcpStream, count: usize, start: Instant) -> Vec<Duration> {
    let reading = async {
        let (mut buffer, mut times) = (Vec::with_capacity(1024), Vec::with_capacity(count));
        while times.len() < count {
            let read = socket.read_buf(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "the stream ended after {} of {count}", times.len());
            let now = start.elapsed();
            let mut read = 0;
            while let Some(end) = find(&buffer[read..], b"\n\n") {
                let event = &buffer[read..read + end];
                read += end + 2;
                if let Some(place) = find(event, br#""at":"#) {
                    let digits = event[place + 5..]
                        .iter()
                        .take_while(|byte| byte.is_ascii_digit());
                    let at = digits.fold(0, |at, digit| at * 10 + u64::from(digit - b'0'));
                    times.push(now.saturating_sub(Duration::from_micros(at)));
                }
            }
            buffer.drain(..read);
        }
        times
    };
    // Longer than anything is measured.
    timeout(10 * PATIENCE, reading).await.unwrap()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
