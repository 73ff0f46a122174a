//! Asking a server to cancel a statement.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::CancelToken;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
#[cfg(unix)]
use tokio_util::either::Either;

use crate::tls::Tls;
use crate::{Cause, Error};

#[cfg(unix)]
type Socket = Either<TcpStream, UnixStream>;
#[cfg(not(unix))]
type Socket = TcpStream;

/// Where a connection may lead: the request goes to each host, and all but one ignore it.
#[derive(Clone)]
pub(crate) struct Canceller {
    config: tokio_postgres::Config,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Canceller {
    pub(crate) fn new(
        config: tokio_postgres::Config,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Self {
        Self { config, tls }
    }

    /// Sends the request, and waits until the server has closed the connection that carries it.
    ///
    /// The library's own function closes the connection first, of which `PgBouncer` before 1.19 dies.
    pub(crate) async fn cancel(&self, token: &CancelToken) -> Result<(), Error> {
        let hosts = self.config.get_hosts();
        let count = hosts.len().max(self.config.get_hostaddrs().len());
        // At once, so that a host that is silent delays no other.
        let requests = (0..count).map(|index| self.cancel_at(index, token));
        let sent = join_all(requests).await.into_iter();
        sent.collect::<Result<(), _>>()
            .map_err(|error| Error::Unsent(Cause::new(error)))
    }

    async fn cancel_at(
        &self,
        index: usize,
        token: &CancelToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ports = self.config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let host = self.config.get_hosts().get(index);
        let domain = match host {
            Some(Host::Tcp(name)) => name.as_str(),
            _ => "",
        };
        let socket = match (self.config.get_hostaddrs().get(index), host) {
            (Some(address), _) => tcp(TcpStream::connect((*address, port)).await?),
            (None, Some(Host::Tcp(name))) => tcp(TcpStream::connect((name.as_str(), port)).await?),
            #[cfg(unix)]
            (None, Some(Host::Unix(folder))) => unix(folder, port).await?,
            (None, None) => return Ok(()),
        };
        let stream = ClosedByServer(socket);
        let mut tls = Tls::new(self.tls.clone());
        let tls = MakeTlsConnect::<ClosedByServer<Socket>>::make_tls_connect(&mut tls, domain)?;
        Ok(token.cancel_query_raw(stream, tls).await?)
    }
}

#[cfg(unix)]
fn tcp(stream: TcpStream) -> Socket {
    Either::Left(stream)
}

#[cfg(not(unix))]
fn tcp(stream: TcpStream) -> Socket {
    stream
}

#[cfg(unix)]
async fn unix(folder: &Path, port: u16) -> io::Result<Socket> {
    let path = folder.join(format!(".s.PGSQL.{port}"));
    UnixStream::connect(path).await.map(Either::Right)
}

/// A connection that waits for its other end to close it.
struct ClosedByServer<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for ClosedByServer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClosedByServer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut bytes = [0; 64];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer));
            // A server that closes before it has read the end of TLS resets the connection.
            let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            if !read.as_ref().is_err_and(is_reset) {
                read?;
            }
            if buffer.filled().is_empty() {
                return Pin::new(&mut self.0).poll_shutdown(cx);
            }
        }
    }
}
