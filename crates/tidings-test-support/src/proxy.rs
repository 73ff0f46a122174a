use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::socket::Socket;

/// A way to a server that can be cut, frozen and blocked: forwards connections until the test changes that,
/// and ends with its last connection when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    target: watch::Sender<Target>,
    mode: watch::Sender<Mode>,
    latency: watch::Sender<Duration>,
    accepted: watch::Receiver<usize>,
    open: TaskTracker,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    /// What is open is closed, and so is everything new.
    Block,
    /// The first connections, so many, stay open and silent; later ones are forwarded.
    Frozen(usize),
}

/// Where a [`Proxy`] leads.
#[derive(Debug, Clone, PartialEq)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What a [`Proxy`] does before it forwards.
#[derive(Clone)]
pub enum Welcome {
    /// Nothing.
    Plain,
    /// TLS from the first byte.
    Tls(TlsAcceptor),
    /// TLS once it has been asked for, in the manner of PostgreSQL.
    TlsOnRequest(TlsAcceptor),
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Tls(_) => "Tls",
            Self::TlsOnRequest(_) => "TlsOnRequest",
        })
    }
}

impl Welcome {
    async fn receive(self, mut client: TcpStream) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Plain => Ok(Box::new(client)),
            Self::Tls(acceptor) => Ok(Box::new(acceptor.accept(client).await?)),
            Self::TlsOnRequest(acceptor) => {
                // https://www.postgresql.org/docs/current/protocol-message-formats.html
                let mut request = [0; 8];
                client.read_exact(&mut request).await?;
                if request != [0, 0, 0, 8, 4, 210, 22, 47] {
                    return Err(io::Error::other("expected an SSLRequest"));
                }
                client.write_all(b"S").await?;
                Ok(Box::new(acceptor.accept(client).await?))
            }
        }
    }
}

impl Proxy {
    /// Stands in front of the server at this URL, which has an address and a port, or a Unix socket as
    /// [`RedisServer::url`](crate::RedisServer::url) and
    /// [`PostgresServer::url`](crate::PostgresServer::url) have one.
    ///
    /// # Errors
    ///
    /// When the URL has neither, or no port is free.
    pub async fn start(url: &str) -> io::Result<Self> {
        Self::welcoming(url, Welcome::Plain).await
    }

    /// Stands in front of a server, and does this to every connection first.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn welcoming(url: &str, welcome: Welcome) -> io::Result<Self> {
        let (target, [before, after]) = Target::parse(url)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("{before}{}{after}", listener.local_addr()?);
        let (target, targets) = watch::channel(target);
        let (latency, latencies) = watch::channel(Duration::ZERO);
        let (mode, modes) = watch::channel(Mode::Forward);
        let (count, accepted) = watch::channel(0);
        let open = TaskTracker::new();
        open.close();
        let connections = open.clone();
        let task = tokio::spawn(async move {
            // A client whose connection cannot be accepted gives up at its own limit.
            while let Ok((client, _)) = listener.accept().await {
                let number = *count.borrow();
                count.send_replace(number + 1);
                // Each ends with its mode, or with the test's runtime.
                let way = Way {
                    welcome: welcome.clone(),
                    target: targets.borrow().clone(),
                    latency: *latencies.borrow(),
                };
                let forwarding = forward(client, way, number, modes.clone());
                connections.spawn(async move {
                    if let Err(error) = forwarding.await {
                        tracing::debug!(%error, "a connection through the proxy broke");
                    }
                });
            }
        });
        Ok(Self {
            url,
            target,
            mode,
            latency,
            accepted,
            open,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// The URL with the proxy's address in place of the server's.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads new connections to another server, as a name does after a failover. Open connections
    /// stay where they are.
    ///
    /// # Errors
    ///
    /// When the URL has neither an address with a port nor a Unix socket.
    pub fn lead_to(&self, url: &str) -> io::Result<()> {
        let (target, _) = Target::parse(url)?;
        self.target.send_replace(target);
        Ok(())
    }

    /// Delays each byte of new connections by this time, in both directions.
    pub fn set_latency(&self, latency: Duration) {
        self.latency.send_replace(latency);
    }

    /// Closes all connections, and lets none in until it is [restored](Self::restore).
    pub fn block(&self) {
        self.mode.send_replace(Mode::Block);
    }

    /// Lets connections in again.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Forwards nothing more on the connections that are open now.
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen(self.accepted()));
    }

    /// Forwards nothing more, also on connections that are opened later.
    pub fn silence(&self) {
        self.mode.send_replace(Mode::Frozen(usize::MAX));
    }

    /// How many connections have been opened so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until no connection is open.
    pub async fn deserted(&self) {
        self.open.wait().await;
    }
}

impl Target {
    /// The target of a URL, and what stands before and after the address that the proxy puts in its
    /// place.
    fn parse(url: &str) -> io::Result<(Self, [String; 2])> {
        if let Some(path) = url.strip_prefix("redis+unix://") {
            let parts = ["redis://".to_owned(), "/".to_owned()];
            return Ok((Self::Unix(path.into()), parts));
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| io::Error::other("the URL has no scheme"))?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let begin = authority.rfind('@').map_or(0, |at| at + 1);
        let (user, address) = authority.split_at(begin);
        let parts = [format!("{scheme}://{user}"), path.to_owned()];
        if address.starts_with("%2F") {
            let (folder, port) = address.split_once(':').unwrap_or((address, "5432"));
            let folder = folder.replace("%2F", "/");
            let socket = format!("{folder}/.s.PGSQL.{port}");
            return Ok((Self::Unix(socket.into()), parts));
        }
        let address = address.parse().map_err(io::Error::other)?;
        Ok((Self::Tcp(address), parts))
    }

    async fn connect(&self) -> io::Result<Either<TcpStream, UnixStream>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Self::Unix(path) => Ok(Either::Right(UnixStream::connect(path).await?)),
        }
    }
}

/// What a new connection gets.
struct Way {
    welcome: Welcome,
    target: Target,
    latency: Duration,
}

async fn forward(
    client: TcpStream,
    way: Way,
    number: usize,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    if *modes.borrow() == Mode::Block {
        return Ok(());
    }
    let mut server = way.target.connect().await?;
    client.set_nodelay(true)?;
    // It fails when the client does not trust the certificate.
    let mut client = way.welcome.receive(client).await?;
    let copying = async {
        if way.latency.is_zero() {
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        } else {
            let (client_out, client_in) = tokio::io::split(client);
            let (server_out, server_in) = tokio::io::split(server);
            tokio::try_join!(
                copy_late(client_out, server_in, way.latency),
                copy_late(server_out, client_in, way.latency),
            )
            .map(drop)
        }
    };
    tokio::pin!(copying);
    loop {
        let mode = *modes.borrow_and_update();
        let frozen = match mode {
            Mode::Forward => false,
            Mode::Block => return Ok(()),
            Mode::Frozen(until) => number < until,
        };
        tokio::select! {
            // A change takes effect before anything that is sent after it.
            biased;
            changed = modes.changed() => if changed.is_err() {
                return Ok(());
            },
            copied = &mut copying, if !frozen => return copied,
        }
    }
}

/// Copies until the end, each byte this much later than it came.
async fn copy_late(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    latency: Duration,
) -> io::Result<()> {
    // As much as the widest window of a test's connection needs.
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let reading = async move {
        loop {
            let mut bytes = vec![0; 16 * 1024];
            let length = from.read(&mut bytes).await?;
            bytes.truncate(length);
            if length == 0 || send.send((Instant::now() + latency, bytes)).await.is_err() {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(drop)
}
