//! Requests whose body was not read when their response was sent.
//!
//! A refusal (of the size, the key, the route) comes before the body has arrived. If the server then
//! closed the connection, what still arrives would make the operating system reset it, and the client
//! would lose the response. So the server closes its own half, reads on for a while, and throws away what
//! it reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::net::TcpStream;

/// Most bytes that are thrown away.
const MAX_BYTES: usize = 64 << 20;

/// Longest time for it, in which the connection counts against the limit.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Whether the body of a connection's last request was left unread.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Watches the body of a request.
    pub(super) fn watch(&self, body: Incoming) -> WatchedBody {
        WatchedBody {
            body,
            has_ended: false,
            unread: self.clone(),
        }
    }

    /// Throws away what the client still sends, within the bounds.
    pub(super) async fn discard(&self, stream: &TcpStream) {
        if self.0.load(Ordering::Acquire) {
            // Whichever comes first: the end, an error, a bound. The connection is over in any case.
            let _ = tokio::time::timeout(MAX_TIME, discard(stream)).await;
        }
    }
}

async fn discard(stream: &TcpStream) -> io::Result<()> {
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

/// A body that notes when it is dropped before its end.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Incoming,
    has_ended: bool,
    unread: Unread,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // After an error there is nothing left to read.
        self.has_ended |= !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let is_unread = !self.has_ended && !self.body.is_end_stream();
        self.unread.0.store(is_unread, Ordering::Release);
    }
}
