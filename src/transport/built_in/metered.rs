use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are read for each request under way.
///
/// It is far more than all heads, and what is read of a body, come to. It ends a flood of what the
/// layers above read for as long as it comes, such as interim responses: they look at a whole buffer
/// at a time, and nothing else stops them in the middle of it.
const MAX_READ: u64 = 2 * 1024 * 1024;

/// How much was read from a connection, and how much may be.
#[derive(Debug)]
pub(super) struct Meter {
    read: AtomicU64,
    may_read: AtomicU64,
}

/// A connection that ends when it is flooded. What is counted is the plain text within TLS.
#[derive(Debug)]
pub(super) struct Metered<T> {
    stream: T,
    meter: Arc<Meter>,
}

/// The other side sends more than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_READ} bytes in response to one request")]
struct Flooded;

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            read: AtomicU64::new(0),
            may_read: AtomicU64::new(MAX_READ),
        })
    }

    /// A request begins, and so many are under way now. Returns how much had been read before.
    pub(super) fn begin_request(&self, under_way: usize) -> u64 {
        let read = self.read();
        let may_read = read.saturating_add(MAX_READ.saturating_mul(under_way as u64));
        self.may_read.store(may_read, Ordering::Release);
        read
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// Whether more was read than anything asked for.
    pub(super) fn is_flooded(&self) -> bool {
        self.read() > self.may_read.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::AcqRel);
    }
}

impl<T> Metered<T> {
    pub(super) fn new(stream: T, meter: Arc<Meter>) -> Self {
        Self { stream, meter }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_flooded() {
            return Poll::Ready(Err(io::Error::other(Flooded)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.meter.add(buffer.filled().len() - before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_allows_more_to_be_read_and_none_allows_a_flood() {
        let bytes = usize::try_from(MAX_READ).unwrap();
        let meter = Meter::new();
        meter.add(bytes);
        assert!(!meter.is_flooded());
        meter.add(1);
        assert!(meter.is_flooded());
        assert_eq!(meter.begin_request(1), MAX_READ + 1);
        assert_eq!(meter.begin_request(2), MAX_READ + 1);
        meter.add(2 * bytes);
        assert!(!meter.is_flooded());
        meter.add(1);
        assert!(meter.is_flooded());
    }
}
