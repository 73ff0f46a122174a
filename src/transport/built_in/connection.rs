//! A connection of each version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderValue, Uri};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;

use super::connector::Connector;
use super::metered::{Meter, Metered};
use crate::transport::RequestBody;

/// Most bytes of a head. Those of a response to a webhook take a few hundred.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a receiver may send ahead over HTTP/2: more than is read of a response's body, and for all
/// responses together.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How often an HTTP/2 connection with requests under way is asked whether it still works, and how
/// long it may take to reply.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What the connector makes.
pub(super) type Connected = <Connector as Service<Uri>>::Response;

type Io = TokioIo<Metered<TokioIo<Connected>>>;

/// A connection of HTTP/1, which has no task of its own: the request that uses it drives it. That
/// spares each request two changes of tasks, and dropping a request closes its connection at once.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) requests: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    driver: Option<http1::Connection<Io, RequestBody>>,
    pub(super) meter: Arc<Meter>,
    /// What a request says that it is for.
    pub(super) host: HeaderValue,
}

/// A connection of HTTP/2, whose task ends when neither a request nor the pool has it.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) requests: http2::SendRequest<RequestBody>,
    pub(super) meter: Arc<Meter>,
    _driver: AbortOnDropHandle<()>,
}

impl Http1 {
    pub(super) async fn new(stream: Connected, host: HeaderValue) -> hyper::Result<Self> {
        let (stream, meter) = metered(stream);
        let (requests, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(stream)
            .await?;
        Ok(Self {
            requests,
            driver: Some(driver),
            meter,
            host,
        })
    }

    /// Lets it continue as far as it can.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(context).is_ready()
        {
            // If it failed, its request has got the error.
            self.driver = None;
        }
    }

    /// Whether another request may use it, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    /// Looks whether another request may use it, while none does. Nothing is woken by it then.
    pub(super) fn check(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_ready()
    }
}

impl Http2 {
    pub(super) async fn new(stream: Connected) -> hyper::Result<Self> {
        let (stream, meter) = metered(stream);
        let (requests, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(stream)
            .await?;
        // If it failed, its requests have got the error.
        let driver = tokio::spawn(driver.map(drop).boxed());
        Ok(Self {
            requests,
            meter,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

/// One connection is no other.
impl PartialEq for Http2 {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

fn metered(stream: Connected) -> (Io, Arc<Meter>) {
    let meter = Meter::new();
    let stream = Metered::new(TokioIo::new(stream), Arc::clone(&meter));
    (TokioIo::new(stream), meter)
}
