//! Requests whose body was not read when their response was sent.
//!
//! A refusal (of the size, the key, the route) comes before the body has arrived. If the server then
//! closed the connection, what still arrives would make the operating system reset it, and the client
//! would lose the response. So the server closes its own half, reads on for a while, and throws away what
//! it reads. A short rest that has arrived already is skipped instead, and the connection is kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{Request, header};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Most bytes that are thrown away.
const MAX_BYTES: usize = 64 << 20;

/// Longest time for it, in which the connection counts against the limit.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Most bytes that are skipped so that the connection can be kept: about what a connection buffers.
const MAX_SKIPPED: usize = 16 << 10;

/// How often the connection gets a turn to bring what has arrived.
const TURNS: usize = 8;

/// Whether the body of a connection's last request was left unread.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Watches the body of a request.
    pub(super) fn watch(&self, request: Request<Incoming>) -> (Request<WatchedBody>, Rest) {
        // Its client may be waiting for leave to send the body.
        let is_expected = request.headers().contains_key(header::EXPECT);
        let (hand_back, left) = oneshot::channel();
        let request = request.map(|body| WatchedBody {
            body: Some(body),
            has_ended: false,
            unread: self.clone(),
            hand_back: Some(hand_back),
        });
        let rest = Rest {
            left,
            is_expected,
            unread: self.clone(),
        };
        (request, rest)
    }

    /// Whether something was left.
    pub(super) fn is_some(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Throws away what the client still sends, within the bounds.
    pub(super) async fn discard(&self, stream: &TcpStream) {
        if self.is_some() {
            discard(stream).await;
        }
    }
}

/// Throws away what a client still sends, within the bounds.
pub(super) async fn discard(stream: &TcpStream) {
    // Whichever comes first: the end, an error, a bound. The connection is over in any case.
    let _ = tokio::time::timeout(MAX_TIME, read_to_end(stream)).await;
}

async fn read_to_end(stream: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = MAX_BYTES;
    while left > 0 {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a request has left of its body.
#[derive(Debug)]
pub(super) struct Rest {
    left: oneshot::Receiver<Incoming>,
    is_expected: bool,
    unread: Unread,
}

impl Rest {
    /// Skips what is left, if it is short and has arrived. Returns whether nothing is left, so that another request
    /// can follow.
    pub(super) async fn skip(mut self) -> bool {
        let Ok(body) = self.left.try_recv() else {
            return true;
        };
        let is_skipped = !self.is_expected && skip(body).await;
        self.unread.0.store(!is_skipped, Ordering::Release);
        is_skipped
    }
}

async fn skip(mut body: Incoming) -> bool {
    let mut left = MAX_SKIPPED;
    let mut turns = TURNS;
    while !body.is_end_stream() {
        if body.size_hint().lower() > left as u64 {
            return false;
        }
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let Some(fewer) = left.checked_sub(length) else {
                    return false;
                };
                left = fewer;
            }
            Some(Some(Err(_))) => return false,
            Some(None) => return true,
            None if turns == 0 => return false,
            None => {
                turns -= 1;
                tokio::task::yield_now().await;
            }
        }
    }
    true
}

/// A body that is handed back when it is dropped before its end.
#[derive(Debug)]
pub(super) struct WatchedBody {
    /// Present until the drop.
    body: Option<Incoming>,
    has_ended: bool,
    unread: Unread,
    hand_back: Option<oneshot::Sender<Incoming>>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        // After an error there is nothing left to read.
        self.has_ended |= !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let is_unread = !self.has_ended && !self.is_end_stream();
        self.unread.0.store(is_unread, Ordering::Release);
        if is_unread
            && let (Some(body), Some(hand_back)) = (self.body.take(), self.hand_back.take())
        {
            // After the response nothing waits for it.
            let _late = hand_back.send(body);
        }
    }
}
