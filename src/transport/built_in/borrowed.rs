use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::connection::{Http1, Http2};
use super::connections::Connections;
use super::failure;
use super::kept::Origin;
use super::metered::Meter;
use crate::transport::RequestBody;

/// A connection for one request.
#[derive(Debug)]
pub(super) struct BorrowedConnection {
    connection: Connection,
    /// Whether it was made for an earlier request.
    is_kept: bool,
    /// How much had been read when the request began.
    read_before: u64,
}

#[derive(Debug)]
enum Connection {
    /// Ends with the request, unless a response was read to its end.
    Http1(Box<Http1>, Home),
    Http2(SharedConnection),
}

/// Where a connection is kept.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) connections: Connections,
    pub(super) origin: Origin,
}

/// Dropped before the head of a response is there, because the attempt's time is up or because its
/// caller gave up, it lets no other request use the connection, which may lead nowhere.
#[derive(Debug)]
struct SharedConnection {
    connection: Arc<Http2>,
    home: Home,
    is_good: bool,
}

impl BorrowedConnection {
    pub(super) fn of_http1(connection: Box<Http1>, home: Home, is_kept: bool) -> Self {
        Self {
            read_before: connection.meter.begin_request(1),
            connection: Connection::Http1(connection, home),
            is_kept,
        }
    }

    /// `users` counts the requests that use the connection now.
    pub(super) fn of_http2(
        connection: Arc<Http2>,
        users: usize,
        home: Home,
        is_kept: bool,
    ) -> Self {
        Self {
            read_before: connection.meter.begin_request(users),
            connection: Connection::Http2(SharedConnection {
                connection,
                home,
                is_good: false,
            }),
            is_kept,
        }
    }

    /// Sends a request and returns the head of the response. A request that was not sent is in the
    /// error.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let progress = Arc::clone(request.body().progress());
        let is_empty = request.body().is_empty();
        let mark = |is_pending| {
            if is_pending && is_empty {
                // Nothing of its body will be asked for.
                progress.assume_sent();
            }
        };
        match &mut self.connection {
            Connection::Http1(connection, _) => {
                let mut response = pin!(connection.requests.try_send_request(request));
                let mut has_waited = false;
                poll_fn(|context| {
                    if !has_waited {
                        // The other tasks go first, and read what has arrived for them. The next
                        // requests leave together then, and do not wake the receiver one by one,
                        // which costs more.
                        has_waited = true;
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    connection.drive(context);
                    let polled = response.as_mut().poll(context);
                    mark(polled.is_pending());
                    polled
                })
                .await
            }
            Connection::Http2(shared) => {
                let mut requests = shared.connection.requests.clone();
                let mut response = pin!(requests.try_send_request(request));
                let result = poll_fn(|context| {
                    let polled = response.as_mut().poll(context);
                    mark(polled.is_pending());
                    polled
                })
                .await;
                // A failure may be that of one request, but not if that was not even sent.
                let error = result.as_ref().err();
                shared.is_good = error.is_none_or(|error| error.message().is_none());
                result
            }
        }
    }

    /// What the header `host` has to be, where there is one.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        match &self.connection {
            Connection::Http1(connection, _) => Some(&connection.host),
            Connection::Http2(_) => None,
        }
    }

    /// Whether the connection was made for an earlier request.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether the connection ended because it was flooded. The error does not say so over HTTP/2.
    pub(super) fn is_flooded(&self) -> bool {
        self.meter().is_flooded()
    }

    /// Whether a kept connection was lost before the first byte of a response.
    pub(super) fn was_stale(&self, error: &hyper::Error) -> bool {
        let got_nothing = match &self.connection {
            Connection::Http1(..) => self.meter().read() == self.read_before,
            // What was read may belong to other requests.
            Connection::Http2(_) => failure::is_refused(error) || failure::ends_connection(error),
        };
        self.is_kept && got_nothing
    }

    fn meter(&self) -> &Meter {
        match &self.connection {
            Connection::Http1(connection, _) => &connection.meter,
            Connection::Http2(shared) => &shared.connection.meter,
        }
    }

    /// Polls the body of the response that arrives on the connection.
    fn poll_frame(&mut self, body: &mut Incoming, context: &mut Context<'_>) -> Poll<NextFrame> {
        let polled = Pin::new(&mut *body).poll_frame(context);
        let Connection::Http1(connection, _) = &mut self.connection else {
            return polled;
        };
        if polled.is_ready() {
            return polled;
        }
        // It is read from the connection only now that it was asked for.
        connection.drive(context);
        Pin::new(body).poll_frame(context)
    }

    /// The response was read to its end.
    fn finish(self) {
        if let Connection::Http1(connection, home) = self.connection
            && connection.is_ready()
        {
            home.connections.put(&home.origin, connection);
        }
    }
}

impl Drop for SharedConnection {
    fn drop(&mut self) {
        let Home {
            connections,
            origin,
        } = &self.home;
        if self.is_good {
            connections.leave(origin, &self.connection);
        } else {
            connections.discard(origin, &self.connection);
        }
    }
}

type NextFrame = Option<Result<Frame<Bytes>, hyper::Error>>;

/// The body of a response, and the connection that it arrives on.
#[derive(Debug)]
pub(crate) struct BorrowedBody {
    body: Incoming,
    /// Until the body was read to its end.
    connection: Option<BorrowedConnection>,
}

impl BorrowedBody {
    pub(super) fn new(body: Incoming, connection: BorrowedConnection) -> Self {
        let connection = Some(connection);
        Self { body, connection }
    }
}

impl Body for BorrowedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<NextFrame> {
        let Self { body, connection } = self.get_mut();
        let Some(of_body) = connection else {
            return Poll::Ready(None);
        };
        let polled = of_body.poll_frame(body, context);
        let is_over = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if is_over && let Some(connection) = connection.take() {
            connection.finish();
        }
        polled
    }
}
