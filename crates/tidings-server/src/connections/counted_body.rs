//! The body of a response, until whose last part is taken to be sent the request counts.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::{ClientConnection, Refused};

/// The body of a response. The request has its place among those of its client while the body is there.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _request: Result<ClientConnection, Refused>,
}

impl CountedBody {
    pub(super) fn new(body: Body, request: Result<ClientConnection, Refused>) -> Self {
        Self {
            body,
            _request: request,
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
