//! The built-in transport: hyper, with our own resolver, connector and limits.
//!
//! ```text
//! BuiltIn ─▶ Connections ─▶ Connector ─▶ TLS ─▶ TCP, or a proxy ─▶ GuardedResolver
//! ```

mod borrowed;
mod connection;
mod connections;
mod connector;
mod failure;
mod kept;
mod metered;
mod proxy;
mod tls;

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::connect::Connection;
use tower_service::Service;

use super::{RequestBody, ResponseBody};
use crate::resolver::GuardedResolver;
use crate::sender::Progress;
use crate::{AttemptError, ConfigError, ErrorKind};
use borrowed::BorrowedConnection;
use connection::{Http1, Http2};
use connections::Connections;
use connector::{Connector, TcpError};
use kept::{Bounds, Origin};

pub(super) use borrowed::BorrowedBody;
pub(crate) use failure::is_limit;
#[cfg(feature = "reqwest")]
pub(super) use failure::of_exchange;
pub(super) use failure::{find, is_local};
pub(crate) use proxy::Proxy;
pub(crate) use tls::TlsSettings;

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

/// Which addresses of this machine connections come from; the system chooses those that are not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LocalAddresses {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// What the built-in transport is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) tls: TlsSettings,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) http_versions: HttpVersions,
    pub(crate) local_addresses: LocalAddresses,
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
    connector: Connector,
    connections: Connections,
    resolver: GuardedResolver,
    proxy: Option<Proxy>,
    versions: HttpVersions,
}

impl BuiltIn {
    pub(crate) fn new(settings: Settings, resolver: GuardedResolver) -> Result<Self, ConfigError> {
        Ok(Self {
            connector: Connector::new(&settings, resolver.clone())?,
            connections: Connections::new(Bounds {
                max_idle: settings.max_idle,
                max_idle_per_origin: settings.max_idle_per_host,
                idle_timeout: settings.idle_timeout,
            }),
            resolver,
            proxy: settings.proxy,
            versions: settings.http_versions,
        })
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let progress = Arc::clone(request.body().progress());
        let must_be_new = request
            .extensions_mut()
            .remove::<OnNewConnection>()
            .is_some();
        let uri = request.uri().clone();
        let origin = Origin::of(&uri)
            .ok_or_else(|| AttemptError::new(ErrorKind::InvalidRequest, "a URL without a host"))?;
        let is_forwarded = uri.scheme() == Some(&Scheme::HTTP);
        let proxy = self.proxy.as_ref().filter(|_| is_forwarded);
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.clone()) {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
        loop {
            let kept = (!must_be_new).then(|| self.connections.take(&origin));
            let mut connection = match kept.flatten() {
                Some(connection) => connection,
                None => self.connect(&origin, &uri, &progress, must_be_new).await?,
            };
            if let Some(host) = connection.host() {
                let host = host.clone();
                request.headers_mut().insert(header::HOST, host);
                if proxy.is_none() {
                    let path = uri.path_and_query().cloned();
                    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
                }
            }
            let mut error = match connection.send(request).await {
                // Between this client and the proxy alone (RFC 9110, 15.5.8).
                Ok(response)
                    if proxy.is_some()
                        && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED =>
                {
                    let error = TcpError::ProxyAuthRequired;
                    return Err(AttemptError::new(ErrorKind::Local, error));
                }
                Ok(response) => {
                    let lent = |body| ResponseBody::built_in(BorrowedBody::new(body, connection));
                    return Ok(response.map(lent));
                }
                Err(error) => error,
            };
            if connection.is_kept()
                && let Some(unsent) = error.take_message()
            {
                // Its connection had ended before.
                request = unsent;
                request.headers_mut().remove(header::HOST);
                *request.uri_mut() = uri.clone();
                continue;
            }
            let error = error.into_error();
            let kind = if connection.is_flooded() {
                ErrorKind::Protocol
            } else {
                failure::of_exchange(&error)
            };
            let is_stale = kind == ErrorKind::Reset && connection.was_stale(&error);
            let was_refused = failure::is_refused(&error);
            return Err(AttemptError::new(kind, error)
                .on_stale_connection(is_stale)
                .refused(was_refused));
        }
    }

    /// Makes a new connection, or finds that another request has made one that can be shared, unless
    /// it must be new.
    async fn connect(
        &self,
        origin: &Origin,
        uri: &Uri,
        progress: &Arc<Progress>,
        must_be_new: bool,
    ) -> Result<BorrowedConnection, AttemptError> {
        let unreached = Unreached {
            resolver: &self.resolver,
            host: uri.host(),
        };
        let mut connector = self.connector.clone();
        let connecting = progress.observe(async move {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(uri.clone()).await
        });
        let stream = match connecting.await {
            Ok(stream) => stream,
            Err(error) => {
                let kind =
                    failure::of_connection(&error, |since| self.resolver.kind_of_silence(since));
                if !kind.is_connect() {
                    unreached.keep();
                }
                if failure::is_exhaustion(&error) {
                    // What is short is what idle connections hold.
                    self.connections.close_idle();
                }
                return Err(AttemptError::new(kind, error));
            }
        };
        unreached.keep();
        let speaks_http2 =
            self.versions == HttpVersions::Http2 || stream.connected().is_negotiated_h2();
        let failed = |error| AttemptError::new(failure::of_exchange(&error), error);
        if !speaks_http2 {
            let host = HeaderValue::from_str(origin.authority.as_str())
                .map_err(|source| AttemptError::new(ErrorKind::InvalidRequest, source))?;
            let connection = Http1::new(stream, host).await.map_err(failed)?;
            return Ok(self.connections.lend(origin, connection));
        }
        let shared = (!must_be_new).then(|| self.connections.take(origin));
        if let Some(connection) = shared.flatten() {
            return Ok(connection);
        }
        let connection = Http2::new(stream).await.map_err(failed)?;
        Ok(self.connections.share(origin, connection))
    }

    /// What kind of failure it is that nothing was sent in time.
    pub(crate) fn kind_of_unsent(&self, progress: &Progress) -> ErrorKind {
        match progress.lookup_pending_since() {
            _ if progress.is_proxy_awaited() => ErrorKind::Local,
            Some(since) => self.resolver.kind_of_silence(since),
            None => ErrorKind::ConnectTimeout,
        }
    }
}

/// A host to which no connection was made: it may have moved, so that its name is resolved anew next
/// time.
struct Unreached<'a> {
    resolver: &'a GuardedResolver,
    host: Option<&'a str>,
}

impl Unreached<'_> {
    /// Its address is right.
    fn keep(mut self) {
        self.host = None;
    }
}

impl Drop for Unreached<'_> {
    fn drop(&mut self) {
        if let Some(host) = self.host {
            self.resolver.forget(host);
        }
    }
}
