//! Client connections: how they are accepted, counted and ended.

mod addresses;
mod forwarded;
mod head_timer;
mod progress;
mod reuse;
mod slots;
mod transport;
mod unread;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

pub(crate) use self::addresses::Refused;
use self::addresses::{Addresses, Place};
use self::head_timer::HeadTimer;
pub(crate) use self::progress::Progress;
use self::slots::Slots;
use self::transport::Transport;
use self::unread::Unread;
use crate::app::SharedApp;
use crate::http;
use crate::settings::network::Network;
use crate::telemetry::OpenConnection;

/// Connections that the operating system completes before the server accepts them: enough for the
/// clients that reconnect after a restart.
const BACKLOG: u32 = 4096;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, and about the most that is buffered for a client that does not
/// read: neither needs a key, so both are small.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long sent bytes may stay unacknowledged before the connection counts as lost: the limit for a
/// client that has stopped reading.
const STALLED_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may block a write while the server stops.
const STALLED_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Wait before connections are accepted again after a failure: closing connections frees
/// descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// One client's connection, as its handlers see it. It counts against the limit until the last clone
/// is dropped, and a WebSocket keeps one.
#[derive(Debug, Clone)]
pub(crate) struct ClientConnection {
    inner: Arc<Inner>,
    /// Among those of the client's address: of the connection, or of one request through a proxy.
    place: Arc<Place>,
}

#[derive(Debug)]
struct Inner {
    progress: Arc<Progress>,
    /// Does not keep the socket open.
    socket: Weak<TcpStream>,
    _permit: OwnedSemaphorePermit,
    _counted: OpenConnection,
}

impl ClientConnection {
    /// How far what was sent has been written.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.inner.progress
    }

    /// Waits until the client has closed the connection, or its sending half only: the two look the same
    /// until something is written. Waits for ever if bytes of the client are unread.
    pub(crate) async fn client_has_ended(&self) {
        if let Some(socket) = self.inner.socket.upgrade()
            && let Ok(1..) = socket.peek(&mut [0]).await
        {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the operating system reports that the connection is broken. After the client has ended, that is
    /// when something was written for it, unless it has closed its sending half only.
    pub(crate) async fn is_broken(&self) {
        if let Some(socket) = self.inner.socket.upgrade() {
            // An error of the call means the same for the stream: nothing more can be sent.
            let _broken = socket.ready(Interest::ERROR).await;
        }
    }

    /// The connection, if it may do more than be refused.
    fn admitted(self) -> Result<Self, Refused> {
        if self.place.is_beyond() {
            return Err(Refused::at(self.place));
        }
        Ok(self)
    }

    /// Waits until the server stops and the client has blocked a write for a moment since. Such a
    /// connection is not worth waiting for.
    pub(crate) async fn stalls_the_stop(&self, stopping: &CancellationToken) {
        stopping.cancelled().await;
        self.inner.progress.stalled(STALLED_STOP_TIMEOUT).await;
    }
}

/// Listens on an address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts and serves connections until `accepting` is cancelled.
pub(crate) async fn accept(listener: TcpListener, app: SharedApp, accepting: CancellationToken) {
    let service = TowerToHyperService::new(http::router(Arc::clone(&app)));
    let mut slots = Slots::new(app.limits.max_connections());
    let addresses = Addresses::new(Arc::clone(&app.limits));
    let trusted: Arc<[Network]> = app.config.trusted_proxies.as_slice().into();
    let mut is_failing = false;
    loop {
        // At the limit, new connections wait in the operating system's queue, which is bounded.
        let next = async {
            let permit = slots.take().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            next = next => next,
        };
        let tuned = accepted.and_then(|(stream, peer)| Ok((tune(stream)?, peer)));
        let (stream, peer) = match tuned {
            Ok(tuned) => tuned,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was lost before it was accepted");
                continue;
            }
            Err(error) => {
                // One line for each shortage, not for each attempt.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "cannot accept connections, trying again (ulimit -n)");
                }
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
        };
        if std::mem::take(&mut is_failing) {
            tracing::info!("accepting connections again");
        }
        let peer = peer.ip();
        let is_proxy = trusted.iter().any(|network| network.contains(peer));
        let place = if is_proxy {
            Some(addresses.uncounted())
        } else {
            addresses.take(peer)
        };
        let Some(place) = place else { continue };
        let proxy = is_proxy.then(|| Proxy {
            address: peer,
            trusted: Arc::clone(&trusted),
            addresses: Arc::clone(&addresses),
        });
        let (stopping, cutting_off) = (app.stopping.clone(), app.cutting_off.clone());
        let keep_alive = app.config.keep_alive;
        let serve = serve(
            stream,
            (permit, place),
            proxy,
            service.clone(),
            keep_alive,
            stopping,
        );
        app.tasks.spawn(async move {
            cutting_off.run_until_cancelled_owned(serve).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    (permit, place): (OwnedSemaphorePermit, Place),
    proxy: Option<Proxy>,
    service: TowerToHyperService<axum::Router>,
    keep_alive: Duration,
    stopping: CancellationToken,
) {
    let progress = Arc::new(Progress::default());
    let stream = Arc::new(stream);
    let connection = ClientConnection {
        inner: Arc::new(Inner {
            progress: Arc::clone(&progress),
            socket: Arc::downgrade(&stream),
            _permit: permit,
            _counted: OpenConnection::new(),
        }),
        place: Arc::new(place),
    };
    let of_requests = connection.clone();
    let unread = Unread::default();
    let (watched, of_stop) = (unread.clone(), stopping.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let is_last = reuse::is_last(&request);
        let (mut request, rest) = watched.watch(request);
        let stopping = of_stop.clone();
        let admitted = match &proxy {
            Some(proxy) => proxy.admit(&of_requests, request.headers()),
            None => of_requests.clone().admitted(),
        };
        // The connection of a proxy is for other clients too.
        let is_refused = proxy.is_none() && admitted.is_err();
        match admitted {
            Ok(connection) => drop(request.extensions_mut().insert(connection)),
            Err(refused) => drop(request.extensions_mut().insert(refused)),
        }
        let response = service.call(request);
        async move {
            let mut response = response.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let closes = !rest.skip().await || is_refused || is_last || stopping.is_cancelled();
                reuse::announce(response.headers_mut(), closes, keep_alive);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let http = http1::Builder::new()
        .timer(HeadTimer::new(Arc::clone(&progress), keep_alive))
        // Counts from the opening of the connection, so a silent one is closed too. Between requests
        // the timer waits for `keep_alive`.
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // A client may close its sending half when its request is complete, and still reads.
        .half_close(true)
        .serve_connection(
            TokioIo::new(Transport::new(Arc::clone(&stream), progress)),
            service,
        )
        .with_upgrades();
    let mut http = pin!(http);
    let outcome = tokio::select! {
        outcome = http.as_mut() => outcome,
        () = stopping.cancelled() => {
            // Finishes the request that is in progress, and reads no other.
            http.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = http => outcome,
                () = connection.stalls_the_stop(&stopping) => {
                    tracing::info!("closed a connection whose client does not read");
                    return;
                }
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection ended"
        );
    }
    // A stop does not wait for it.
    stopping.run_until_cancelled(unread.discard(&stream)).await;
}

/// A trusted proxy, whose requests are counted by the clients that it names.
struct Proxy {
    address: IpAddr,
    trusted: Arc<[Network]>,
    addresses: Arc<Addresses>,
}

impl Proxy {
    /// The connection for a request, with a place among those of its client, if the client has not as many as
    /// allowed. A request for no client is the proxy's own, such as a look at the health, and has no place.
    fn admit(
        &self,
        connection: &ClientConnection,
        headers: &HeaderMap,
    ) -> Result<ClientConnection, Refused> {
        if !self.addresses.has_limit() {
            return Ok(connection.clone());
        }
        let Some(client) = forwarded::client(self.address, headers, &self.trusted) else {
            return Ok(connection.clone());
        };
        let place = self
            .addresses
            .take(client)
            .ok_or_else(Refused::without_place)?;
        let connection = ClientConnection {
            inner: Arc::clone(&connection.inner),
            place: Arc::new(place),
        };
        connection.admitted()
    }
}

fn tune(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(STALLED_WRITE_TIMEOUT))?;
    socket.set_keepalive(true)?;
    Ok(stream)
}

/// Whether the failure concerns the accepted connection alone: its client has left already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
