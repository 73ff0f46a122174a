//! Client connections: how they are accepted, counted and ended.

mod addresses;
mod counted_body;
mod forwarded;
mod handover;
mod head_timer;
mod idle_socket;
mod progress;
mod reuse;
mod slots;
mod stream_socket;
mod transport;
mod unread;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::panics;
use axum::http::{HeaderMap, StatusCode, Version};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;

pub(crate) use self::addresses::Refused;
use self::addresses::{Addresses, NoPlace, Place};
use self::counted_body::CountedBody;
use self::handover::Handover;
pub(crate) use self::handover::Leaving;
use self::head_timer::HeadTimer;
pub(crate) use self::idle_socket::IdleSocket;
pub(crate) use self::progress::Progress;
pub(crate) use self::reuse::has_option;
use self::slots::Slots;
pub(crate) use self::stream_socket::{Framing, StreamSocket};
pub(crate) use self::transport::Transport;
use self::unread::Unread;
use crate::app::SharedApp;
use crate::http;
use crate::settings::network::Network;
use crate::telemetry::OpenConnection;

#[cfg(test)]
mod tests;

/// Connections that the operating system completes before the server accepts them: enough for the
/// clients that reconnect after a restart.
const BACKLOG: u32 = 4096;

/// Connections that were accepted and had no turn yet. Others wait in the operating system's queue: what is served already
/// would wait for all of them.
const BEGINNING_AT_ONCE: usize = 16;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, and about the most that is buffered for a client that does not
/// read: neither needs a key, so both are small.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long sent bytes may stay unacknowledged before the connection counts as lost: the limit for a
/// client that has stopped reading.
const STALLED_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Wait before connections are accepted again after a failure: closing connections frees
/// descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// One client's connection, as its handlers see it.
#[derive(Debug, Clone)]
pub(crate) struct ClientConnection {
    counted: Counted,
    /// Ends with the connection, whatever waits in it.
    handover: Weak<Handover>,
}

/// A connection among those that are counted: against the limit until the last clone is dropped. A stream keeps one.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    _open: Arc<Open>,
    /// Among those of the client's address, if they are counted: of the connection, or of one request through a proxy.
    place: Option<Arc<Place>>,
}

#[derive(Debug)]
struct Open {
    _permit: OwnedSemaphorePermit,
    _counted: OpenConnection,
}

impl ClientConnection {
    /// A body that begins with `opening`. When that is written, the connection leaves the HTTP library, and `rest`
    /// gets it. `version` is that of the request.
    pub(crate) fn leave_with(
        &self,
        version: Version,
        opening: Bytes,
        rest: impl FnOnce(StreamSocket<Transport>) + Send + 'static,
    ) -> Leaving {
        let framing = if version == Version::HTTP_10 {
            Framing::Plain
        } else {
            Framing::Chunked
        };
        let rest = Box::new(move |transport, unread| {
            rest(StreamSocket::new(transport, framing, unread));
        });
        Leaving::new(opening, Weak::clone(&self.handover), rest)
    }

    /// What a stream keeps of it.
    pub(crate) fn into_counted(self) -> Counted {
        self.counted
    }

    /// The connection, if it may do more than be refused.
    fn admitted(self) -> Result<Self, Refused> {
        match self.counted.place {
            Some(place) if place.is_beyond() => Err(Refused::at(place)),
            _ => Ok(self),
        }
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
    let mut listening = Listening {
        listener,
        service: TowerToHyperService::new(http::router(Arc::clone(&app))),
        slots: Slots::new(app.limits.max_connections()),
        beginnings: Arc::new(Semaphore::new(BEGINNING_AT_ONCE)),
        addresses: Addresses::new(Arc::clone(&app.limits)),
        trusted: app.config.trusted_proxies.as_slice().into(),
        is_failing: false,
        app,
    };
    let accept = async {
        loop {
            panics::attempt("the task that accepts connections", listening.accept_all()).await;
        }
    };
    accepting.run_until_cancelled(accept).await;
}

/// What accepts connections.
struct Listening {
    listener: TcpListener,
    app: SharedApp,
    service: TowerToHyperService<axum::Router>,
    slots: Slots,
    beginnings: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    trusted: Arc<[Network]>,
    /// Whether the last attempt failed, for want of descriptors.
    is_failing: bool,
}

impl Listening {
    /// Never returns.
    async fn accept_all(&mut self) {
        loop {
            self.accept_next().await;
        }
    }

    async fn accept_next(&mut self) {
        // At the limit, new connections wait in the operating system's queue, which is bounded.
        let permit = self.slots.take().await;
        let beginning = Arc::clone(&self.beginnings).acquire_owned().await.ok();
        let accepted = self.listener.accept().await;
        let tuned = accepted.and_then(|(stream, peer)| Ok((tune(stream)?, peer)));
        let (stream, peer) = match tuned {
            Ok(tuned) => tuned,
            Err(error) if is_of_one_connection(&error) => {
                panics::catch(
                    || tracing::debug!(%error, "a connection was lost before it was accepted"),
                );
                return;
            }
            Err(error) => {
                // One line for each shortage, not for each attempt.
                if !std::mem::replace(&mut self.is_failing, true) {
                    panics::catch(
                        || tracing::warn!(%error, "cannot accept connections, trying again (ulimit -n)"),
                    );
                }
                tokio::time::sleep(RETRY_DELAY).await;
                return;
            }
        };
        if std::mem::take(&mut self.is_failing) {
            panics::catch(|| tracing::info!("accepting connections again"));
        }
        let peer = peer.ip();
        let is_proxy = self.trusted.iter().any(|network| network.contains(peer));
        let place = if is_proxy {
            Ok(None)
        } else {
            self.addresses.take(peer)
        };
        let Ok(place) = place else { return };
        let proxy = is_proxy.then(|| Proxy {
            address: peer,
            trusted: Arc::clone(&self.trusted),
            addresses: Arc::clone(&self.addresses),
        });
        let serve = serve(
            Arc::clone(&self.app),
            stream,
            (permit, beginning, place),
            proxy,
            self.service.clone(),
        );
        let cutting_off = self.app.cutting_off.clone();
        self.app
            .tasks
            .spawn(serve.with_cancellation_token_owned(cutting_off));
    }
}

async fn serve(
    app: SharedApp,
    stream: TcpStream,
    (permit, mut beginning, place): (
        OwnedSemaphorePermit,
        Option<OwnedSemaphorePermit>,
        Option<Place>,
    ),
    proxy: Option<Proxy>,
    service: TowerToHyperService<axum::Router>,
) {
    let keep_alive = app.config.keep_alive;
    let stopping = app.stopping.clone();
    let read_period = app.config.read_period();
    let progress = Arc::new(Progress::default());
    let handover = Arc::new(Handover::default());
    let connection = ClientConnection {
        counted: Counted {
            _open: Arc::new(Open {
                _permit: permit,
                _counted: OpenConnection::new(),
            }),
            place: place.map(Arc::new),
        },
        handover: Arc::downgrade(&handover),
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
        // A handler drops what the request has before the response is sent, or before it has read the body.
        let counted = admitted.clone();
        match admitted {
            Ok(connection) => drop(request.extensions_mut().insert(connection)),
            Err(refused) => drop(request.extensions_mut().insert(refused)),
        }
        let response = service.call(request);
        async move {
            let mut response = response.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let closes = !rest.skip().await
                    || is_refused
                    || is_last
                    || reuse::closes(response.headers())
                    || stopping.is_cancelled();
                reuse::announce(response.headers_mut(), closes, keep_alive);
            }
            Ok::<_, Infallible>(response.map(|body| CountedBody::new(body, counted)))
        }
    });
    let transport = Transport::new(stream, Arc::clone(&progress), Arc::clone(&handover));
    let mut http = http1::Builder::new()
        .timer(HeadTimer::new(Arc::clone(&progress), keep_alive))
        // Counts from the opening of the connection, so a silent one is closed too. Between requests
        // the timer waits for `keep_alive`.
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // A client may close its sending half when its request is complete, and still reads.
        .half_close(true)
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades();
    let mut is_ending = false;
    let outcome = loop {
        tokio::select! {
            // What has left the library is not asked again.
            biased;
            rest = handover.taken_over() => {
                if let Some(parts) = http.into_parts() {
                    rest(parts.io.into_inner(), unread);
                }
                return;
            }
            outcome = poll_fn(|context| {
                let polled = std::pin::Pin::new(&mut http).poll(context);
                // What has come of the first request has had its turn.
                beginning = None;
                polled
            }) => break outcome,
            () = stopping.cancelled(), if !is_ending => {
                // Finishes the request that is in progress, and reads no other.
                std::pin::Pin::new(&mut http).graceful_shutdown();
                is_ending = true;
            }
            () = progress.stalls_the_stop(&stopping), if is_ending => {
                tracing::info!("closed a connection whose client does not read");
                return;
            }
            () = progress.fell_behind(read_period) => {
                tracing::info!("closed a connection whose client reads a response too slowly");
                return;
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection ended"
        );
    }
    // Not of a connection that was upgraded.
    if let Some(parts) = http.into_parts() {
        let transport = parts.io.into_inner();
        let discard = unread.discard(transport.socket());
        // A stop does not wait for it.
        stopping.run_until_cancelled(discard).await;
    }
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
            .map_err(|NoPlace| Refused::without_place())?;
        let connection = ClientConnection {
            counted: Counted {
                place: place.map(Arc::new),
                ..connection.counted.clone()
            },
            handover: Weak::clone(&connection.handover),
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
