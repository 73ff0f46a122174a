use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::built_in::BorrowedBody;
use crate::sender::Progress;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of a request: the bytes of the message, in one piece.
///
/// It notes when its bytes are taken, which the transport does once there is a connection to write
/// them to. Before that, nothing of the request can have reached the endpoint.
#[derive(Debug)]
pub struct RequestBody {
    bytes: Option<Bytes>,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(crate) fn new(bytes: Bytes, progress: Arc<Progress>) -> Self {
        Self {
            bytes: (!bytes.is_empty()).then_some(bytes),
            progress,
        }
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether there is nothing to send. A transport never asks for the bytes of such a body.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.progress.sending();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(length as u64)
    }
}

/// The body of a response. Of a long one only the head is read.
pub struct ResponseBody(Inner);

enum Inner {
    BuiltIn(BorrowedBody),
    Boxed(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
    Empty,
}

impl ResponseBody {
    /// Wraps a body.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Inner::Boxed(Box::pin(MapError(Box::pin(body)))))
    }

    /// No body.
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    pub(super) fn built_in(body: BorrowedBody) -> Self {
        Self(Inner::BuiltIn(body))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Inner::BuiltIn(body) => Pin::new(body).poll_frame(context).map_err(BoxError::from),
            Inner::Boxed(body) => body.as_mut().poll_frame(context),
            Inner::Empty => Poll::Ready(None),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody")
    }
}

/// A body whose errors are boxed.
struct MapError<B>(Pin<Box<B>>);

impl<B> Body for MapError<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_frame(context).map_err(Into::into)
    }
}
