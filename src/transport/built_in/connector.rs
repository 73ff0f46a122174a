//! How a connection is made: name, TCP, TLS, each timed, all within one deadline.
//!
//! ```text
//! Connector ─▶ TLS (see `tls`) ─▶ Tcp ─▶ GuardedResolver
//!                                  └───▶ a proxy (see `proxy`)
//! ```

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::proxy::Proxy;
use super::tls::{Secured, Tls};
use super::{LocalAddresses, Settings, failure, tls};
use crate::ConfigError;
use crate::resolver::GuardedResolver;
use crate::sender::Progress;

/// How long a connection may be silent before the system asks whether the other side is there. A
/// kept connection to a machine that has vanished would be found out by a lost request otherwise.
const KEEPALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection. Nothing of a request has left.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection in time")]
    TimedOut {
        /// Whether there was no connection to the proxy yet.
        at_proxy: bool,
        /// Since when the host name was being resolved, if it still was.
        lookup_pending_since: Option<Instant>,
        source: Elapsed,
    },
    #[error(transparent)]
    Tcp(TcpError),
    #[error("the handshake failed")]
    Tls(#[source] BoxError),
    #[error("TLS cannot be used")]
    TlsUnavailable(#[source] Arc<dyn StdError + Send + Sync>),
}

/// Why there is no TCP connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum TcpError {
    /// The lookup, the policy, the network, or a proxy that refused a tunnel.
    #[error(transparent)]
    Failed(BoxError),
    /// Without a cause: what the system says is what it says if no port is left.
    #[error("this machine has no route to the address")]
    NoRoute,
    #[error("the proxy could not be reached")]
    Proxy(#[source] BoxError),
    #[error("the proxy asks for a user name and a password")]
    ProxyAuthRequired,
}

/// Makes connections for both schemes.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    secured: Secured<Tcp>,
    /// Why only plain connections can be made.
    no_tls: Option<Arc<dyn StdError + Send + Sync>>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: &Settings, resolver: GuardedResolver) -> Result<Self, ConfigError> {
        let timeout = settings.connect_timeout;
        let tcp = Tcp::new(resolver, settings);
        let Tls { secured, unusable } = tls::secured(tcp, &settings.tls, settings.http_versions)?;
        Ok(Self {
            secured,
            no_tls: unusable,
            timeout,
        })
    }
}

impl Service<Uri> for Connector {
    type Response = <Secured<Tcp> as Service<Uri>>::Response;
    type Error = ConnectError;
    type Future = Connecting<Self::Response, ConnectError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.secured.poll_ready(context).map_err(classify)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(reason) = &self.no_tls
            && uri.scheme() == Some(&Scheme::HTTPS)
        {
            let error = ConnectError::TlsUnavailable(Arc::clone(reason));
            return Box::pin(async { Err(error) });
        }
        let progress = Progress::current();
        let connecting = timeout(self.timeout, self.secured.call(uri));
        Box::pin(async move {
            let connection = match connecting.await {
                Ok(connected) => connected.map_err(classify)?,
                Err(source) => {
                    let progress = progress.as_ref();
                    return Err(ConnectError::TimedOut {
                        at_proxy: progress.is_some_and(|it| it.is_proxy_awaited()),
                        lookup_pending_since: progress.and_then(|it| it.lookup_pending_since()),
                        source,
                    });
                }
            };
            if let Some(progress) = progress {
                progress.connected();
            }
            Ok(connection)
        })
    }
}

fn classify(error: impl Into<BoxError>) -> ConnectError {
    match error.into().downcast() {
        Ok(error) => ConnectError::Tcp(*error),
        // What did not fail below failed in the handshake.
        Err(error) => ConnectError::Tls(error),
    }
}

/// An error of a library that only names the step that failed. Its text is that of its cause.
#[derive(Debug)]
struct Step<E>(E);

impl<E: StdError> fmt::Display for Step<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl<E: StdError> StdError for Step<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

type TunnelError = <Tunnel<ToProxy> as Service<Uri>>::Error;

fn of_tunnel(error: TunnelError) -> TcpError {
    TcpError::Failed(match error {
        TunnelError::ProxyAuthRequired => return TcpError::ProxyAuthRequired,
        TunnelError::ProxyHeadersTooLong => "the proxy replied with too large a head".into(),
        TunnelError::TunnelUnexpectedEof => "the proxy closed the connection".into(),
        TunnelError::TunnelUnsuccessful => "the proxy opened no tunnel".into(),
        TunnelError::MissingHost | TunnelError::ConnectFailed(_) | TunnelError::Io(_) => {
            Step(error).into()
        }
    })
}

/// Makes TCP connections, to the receiver or through a proxy.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    direct: Direct,
    proxy: Option<Proxy>,
}

impl Tcp {
    fn new(resolver: GuardedResolver, settings: &Settings) -> Self {
        let mut connector = HttpConnector::new_with_resolver(resolver.clone());
        // With TLS or not is decided above.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        // Shared between the addresses of a name, so that the first one cannot use up all of it.
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let LocalAddresses { v4, v6 } = settings.local_addresses;
        match (v4, v6) {
            (Some(v4), Some(v6)) => connector.set_local_addresses(v4, v6),
            (Some(v4), None) => connector.set_local_address(Some(v4.into())),
            (None, v6) => connector.set_local_address(v6.map(Into::into)),
        }
        Self {
            direct: Direct {
                connector,
                resolver,
            },
            proxy: settings.proxy.clone(),
        }
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = TcpError;
    type Future = Connecting<Self::Response, TcpError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        self.direct.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let start = Instant::now();
        let progress = Progress::current();
        let connecting: Connecting<Self::Response, TcpError> = match &self.proxy {
            None => Box::pin(self.direct.call(uri)),
            Some(proxy) if uri.scheme() == Some(&Scheme::HTTPS) => {
                let to_proxy = ToProxy(self.direct.clone());
                let mut tunnel = Tunnel::new(proxy.uri.clone(), to_proxy);
                if let Some(authorization) = &proxy.authorization {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                let tunneling = tunnel.call(uri);
                Box::pin(async { tunneling.await.map_err(of_tunnel) })
            }
            Some(proxy) => ToProxy(self.direct.clone()).call(proxy.uri.clone()),
        };
        Box::pin(async move {
            let stream = connecting.await?;
            if let Some(progress) = progress {
                progress.reached(start.elapsed());
            }
            Ok(stream)
        })
    }
}

/// Makes TCP connections to the host of a URL.
#[derive(Debug, Clone)]
struct Direct {
    connector: HttpConnector<GuardedResolver>,
    resolver: GuardedResolver,
}

impl Service<Uri> for Direct {
    type Response = TokioIo<TcpStream>;
    type Error = TcpError;
    type Future = Connecting<Self::Response, TcpError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        let polled = self.connector.poll_ready(context);
        polled.map_err(|error| TcpError::Failed(Step(error).into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.connector.call(uri.clone());
        let resolver = self.resolver.clone();
        Box::pin(async move {
            let connected = connecting.await;
            connected.map_err(|error| {
                let has_route = || uri.host().is_some_and(|host| resolver.has_route(host));
                if failure::is_without_address(&error) && !has_route() {
                    TcpError::NoRoute
                } else {
                    TcpError::Failed(Step(error).into())
                }
            })
        })
    }
}

/// Makes TCP connections to the proxy. A failure says nothing about the receiver.
#[derive(Debug, Clone)]
struct ToProxy(Direct);

impl Service<Uri> for ToProxy {
    type Response = TokioIo<TcpStream>;
    type Error = TcpError;
    type Future = Connecting<Self::Response, TcpError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let progress = Progress::current();
        let connecting = self.0.call(uri);
        Box::pin(async move {
            if let Some(progress) = &progress {
                progress.await_proxy(true);
            }
            let connected = connecting.await;
            let connected = connected.map_err(|error| TcpError::Proxy(error.into()))?;
            if let Some(progress) = &progress {
                progress.await_proxy(false);
            }
            Ok(connected)
        })
    }
}
