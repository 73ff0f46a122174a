use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::phases::Progress;

/// A body that notes when the transport takes its bytes, which it does once there is a connection
/// to write them to. Before that, nothing of the request can have reached the endpoint.
#[derive(Debug)]
pub(super) struct TrackedBody {
    bytes: Option<Bytes>,
    progress: Arc<Progress>,
}

impl TrackedBody {
    pub(super) fn new(bytes: Bytes, progress: Arc<Progress>) -> Self {
        // The transport never asks for the bytes of an empty body. It has to be taken for sent.
        let empty = bytes.is_empty();
        if empty {
            progress.sent_unseen();
        }
        Self {
            bytes: (!empty).then_some(bytes),
            progress,
        }
    }
}

impl Body for TrackedBody {
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
