use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use tower_service::Service;

use super::built_in::{find, is_local, of_exchange};
use super::{RequestBody, ResponseBody, Transport};
use crate::{AttemptError, ConfigError, ErrorKind};

/// Sends requests through a client that is built with reqwest.
pub(crate) struct ReqwestTransport(reqwest::Client);

impl ReqwestTransport {
    /// Builds the client, without redirects, retries and decompression, whatever the builder says.
    pub(crate) fn new(
        builder: reqwest::ClientBuilder,
        connect_timeout: Duration,
    ) -> Result<Self, ConfigError> {
        builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(connect_timeout)
            .build()
            .map(Self)
            .map_err(|source| {
                ConfigError::new("http_client", "settings that a client can be built from")
                    .with_source(source)
            })
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let is_secured = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let request = request.map(reqwest::Body::wrap);
        let request = reqwest::Request::try_from(request)
            .map_err(|error| AttemptError::new(ErrorKind::InvalidRequest, error.without_url()))?;
        match self.0.execute(request).await {
            Ok(response) => Ok(Response::from(response).map(ResponseBody::new)),
            Err(error) => Err(attempt_error(error, is_secured)),
        }
    }
}

fn attempt_error(error: reqwest::Error, is_secured: bool) -> AttemptError {
    // The URL may hold a key, and the caller knows the endpoint.
    let error = error.without_url();
    let kind = if error.is_builder() {
        ErrorKind::InvalidRequest
    } else if error.is_connect() {
        of_connection(&error, is_secured)
    } else if error.is_timeout() {
        ErrorKind::ResponseTimeout
    } else {
        of_exchange(&error)
    };
    AttemptError::new(kind, Failed(error))
}

/// An error of reqwest. It begins with what failed: the errors around that only name a step.
#[derive(Debug)]
struct Failed(reqwest::Error);

impl Failed {
    fn what_failed(&self) -> &(dyn StdError + 'static) {
        let mut error: &(dyn StdError + 'static) = &self.0;
        while is_step(error)
            && let Some(cause) = error.source()
        {
            error = cause;
        }
        error
    }
}

/// What went wrong before there was a TCP connection.
type TcpError = <HttpConnector as Service<Uri>>::Error;

/// What a proxy did not do, or why it could not be reached.
type TunnelError = <Tunnel<HttpConnector> as Service<Uri>>::Error;

fn is_step(error: &(dyn StdError + 'static)) -> bool {
    error.is::<reqwest::Error>() || error.is::<legacy::Error>() || error.is::<TcpError>()
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.what_failed(), f)
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.what_failed().source()
    }
}

fn of_connection(error: &reqwest::Error, is_secured: bool) -> ErrorKind {
    let io = find::<io::Error>(error);
    let tunnel = find::<TunnelError>(error);
    match io {
        Some(io) if is_local(io) => ErrorKind::Local,
        // The proxy could not be reached, or does not know this client.
        _ if matches!(
            tunnel,
            Some(TunnelError::ConnectFailed(_) | TunnelError::ProxyAuthRequired)
        ) =>
        {
            ErrorKind::Local
        }
        // A lookup may have run into a time limit of the resolver.
        _ if error.is_dns() => ErrorKind::Dns,
        _ if error.is_timeout() => ErrorKind::ConnectTimeout,
        _ if tunnel.is_some() => ErrorKind::Connect,
        Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        _ if !is_secured || find::<TcpError>(error).is_some() => ErrorKind::Connect,
        // The operating system numbers its errors; errors of TLS have no such number.
        Some(io) if io.raw_os_error().is_some() && !is_end(io) => ErrorKind::Connect,
        _ => ErrorKind::Tls,
    }
}

/// Whether a connection that had come about has ended.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

/// Leaves the client's default headers out, which may hold keys.
impl fmt::Debug for ReqwestTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestTransport").finish_non_exhaustive()
    }
}
