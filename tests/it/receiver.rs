//! A receiver that does exactly as its script says, byte by byte.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Accepts connections until it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    requests: mpsc::Receiver<String>,
    _task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Reads one request from each connection, reports it, and leaves the rest to a script.
    pub(crate) async fn start<F, S>(script: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, requests) = mpsc::channel(10_000);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(request) = read_request(&mut stream).await {
                    report.try_send(request).unwrap();
                    connections.spawn(script(stream));
                }
            }
        });
        Self {
            address,
            requests,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Answers every request with some bytes and closes the connection.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            // The sender may be gone already: that is its right.
            drop(stream.write_all(answer.as_bytes()).await);
        })
        .await
    }

    /// Takes requests and never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// The next request as text, headers in lower case.
    pub(crate) async fn request(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }

    /// How many requests came that nobody has taken.
    pub(crate) fn untaken(&self) -> usize {
        self.requests.len()
    }
}

/// Reads a head and as much of a body as its `content-length` says; `None` when the connection ends
/// before.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(format!("{head}\r\n\r\n{body}"));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
