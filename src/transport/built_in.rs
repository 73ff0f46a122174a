//! The built-in transport: hyper, with our own resolver, connector and limits.
//!
//! ```text
//! BuiltIn ─▶ pool of connections (hyper-util) ─▶ Connector ─▶ TLS ─▶ TCP, or a proxy ─▶ GuardedResolver
//! ```

mod connections;
mod connector;
mod exchange;
mod failure;
mod metered;
mod proxy;
mod tls;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Uri, header};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{RequestBody, ResponseBody};
use crate::resolver::GuardedResolver;
use crate::sender::Progress;
use crate::{AttemptError, ConfigError, ErrorKind};
use connector::Connector;
use exchange::Exchange;

pub(crate) use connections::{Connections, Lease};
pub(super) use failure::find;
#[cfg(feature = "reqwest")]
pub(super) use failure::{is_local, of_exchange};
pub(crate) use proxy::Proxy;
pub(crate) use tls::TlsSettings;

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

/// Most interim responses (1xx) before the final one. HTTP sets no limit; nothing uses more than a
/// few.
const MAX_INTERIM_RESPONSES: u32 = 100;

/// Which versions of HTTP the built-in transport speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpVersions {
    /// HTTP/2 where the TLS handshake agrees on it, HTTP/1.1 everywhere else.
    #[default]
    Negotiated,
    /// Only HTTP/1.1.
    Http1,
    /// Only HTTP/2, without TLS too (*prior knowledge*).
    Http2,
}

/// What the built-in transport is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) tls: TlsSettings,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) http_versions: HttpVersions,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_idle: usize,
    pub(crate) max_idle_per_host: usize,
}

/// Marks a request that must not go over a kept connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnNewConnection;

/// Follows no redirect and decodes nothing.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    pooled: legacy::Client<Connector, RequestBody>,
    /// Keeps no connections, so that each request gets a new one.
    unpooled: legacy::Client<Connector, RequestBody>,
    resolver: GuardedResolver,
    connections: Connections,
    proxy: Option<Proxy>,
    versions: HttpVersions,
}

impl BuiltIn {
    pub(crate) fn new(settings: Settings, resolver: GuardedResolver) -> Result<Self, ConfigError> {
        let connections = Connections::new(settings.max_idle);
        let connector = Connector::new(&settings, resolver.clone(), connections.clone())?;
        let build = |max_idle_per_host| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(settings.idle_timeout)
                .pool_max_idle_per_host(max_idle_per_host)
                .http1_max_buf_size(MAX_HEAD_BYTES)
                .http2_only(settings.http_versions == HttpVersions::Http2)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .build(connector.clone())
        };
        Ok(Self {
            pooled: build(settings.max_idle_per_host),
            unpooled: build(0),
            resolver,
            connections,
            proxy: settings.proxy,
            versions: settings.http_versions,
        })
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let progress = Arc::clone(request.body().progress());
        let client = match request.extensions_mut().remove::<OnNewConnection>() {
            Some(OnNewConnection) => &self.unpooled,
            None => &self.pooled,
        };
        if let Some(authorization) = self.proxy_authorization(request.uri()) {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
        let counting = Arc::clone(&progress);
        hyper::ext::on_informational(&mut request, move |_| {
            counting.interim_response(MAX_INTERIM_RESPONSES);
        });
        let captured = capture_connection(&mut request);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let mut exchange = Exchange::new(
            captured,
            request.body(),
            &self.resolver,
            host,
            self.versions,
        );
        let response = {
            let mut response = pin!(progress.observe(client.request(request)));
            tokio::select! {
                biased;
                response = exchange.watch(response.as_mut()) => response,
                () = progress.flooded() => {
                    return Err(AttemptError::new(ErrorKind::Protocol, Flood));
                }
            }
        };
        match response {
            Ok(response) => {
                let lease = exchange.succeed();
                Ok(response.map(|body| ResponseBody::built_in(body, lease)))
            }
            Err(error) => {
                let kind = if exchange.is_flooded() {
                    ErrorKind::Protocol
                } else {
                    failure::kind(&error, |since| self.resolver.kind_of_silence(since))
                };
                if failure::is_exhaustion(&error) {
                    // What is short is what idle connections hold.
                    self.connections.close_idle();
                }
                let is_stale = exchange.fail(kind, &error);
                let was_refused = failure::is_refused(&error);
                Err(AttemptError::new(kind, error)
                    .on_stale_connection(is_stale)
                    .refused(was_refused))
            }
        }
    }

    /// What kind of failure it is that nothing was sent in time.
    pub(crate) fn kind_of_unsent(&self, progress: &Progress) -> ErrorKind {
        match progress.lookup_pending_since() {
            Some(since) => self.resolver.kind_of_silence(since),
            None => ErrorKind::ConnectTimeout,
        }
    }

    /// What the proxy wants to see on a request that is not tunnelled.
    fn proxy_authorization(&self, uri: &Uri) -> Option<http::HeaderValue> {
        let is_plain = uri.scheme() == Some(&http::uri::Scheme::HTTP);
        let proxy = self.proxy.as_ref().filter(|_| is_plain)?;
        proxy.authorization.clone()
    }
}

/// The receiver said "wait" too often.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_INTERIM_RESPONSES} interim responses")]
struct Flood;
