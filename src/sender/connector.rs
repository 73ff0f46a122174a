//! How a connection is made: name, TCP, TLS, each timed, all within one deadline.
//!
//! ```text
//! Connector ─▶ TLS (see `tls`) ─▶ Tcp ─▶ GuardedResolver
//! ```

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::metered::Metered;
use super::phases::Progress;
use super::tls::Secured;
use crate::resolver::GuardedResolver;

/// How long a connection may be silent before the system asks whether the other side is there. A
/// kept connection to a machine that has vanished would be found out by a lost request otherwise.
const KEEPALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection. Nothing of a request has left.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection in time")]
    TimedOut(#[source] Elapsed),
    #[error(transparent)]
    Tcp(TcpError),
    #[error("the handshake failed")]
    Tls(#[source] BoxError),
}

/// Why there is no TCP connection: the lookup, the policy, or the network.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct TcpError(BoxError);

/// Makes connections for both schemes.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    secured: Secured<Tcp>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(secured: Secured<Tcp>, timeout: Duration) -> Self {
        Self { secured, timeout }
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
        // Asked for here: a connection that outlives its attempt goes on in a task of its own.
        let progress = Progress::current();
        let connecting = timeout(self.timeout, self.secured.call(uri));
        Box::pin(async move {
            let connection = connecting
                .await
                .map_err(ConnectError::TimedOut)?
                .map_err(classify)?;
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

/// Makes TCP connections.
#[derive(Debug, Clone)]
pub(super) struct Tcp(HttpConnector<GuardedResolver>);

impl Tcp {
    pub(super) fn new(resolver: GuardedResolver, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new_with_resolver(resolver);
        // With TLS or not is decided above.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        // Shared between the addresses of a name, so that the first one cannot use up all of it.
        connector.set_connect_timeout(Some(timeout));
        Self(connector)
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<Metered>;
    type Error = TcpError;
    type Future = Connecting<Self::Response, TcpError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        self.0
            .poll_ready(context)
            .map_err(|error| TcpError(error.into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let start = Instant::now();
        let progress = Progress::current();
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let stream = connecting.await.map_err(|error| TcpError(error.into()))?;
            if let Some(progress) = progress {
                progress.reached(start.elapsed());
            }
            Ok(TokioIo::new(Metered::new(stream.into_inner())))
        })
    }
}
