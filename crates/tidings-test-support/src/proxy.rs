use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::socket::Socket;

/// A way to a server that can be cut, frozen and blocked: forwards connections until told otherwise,
/// and ends with its last connection when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    accepted: watch::Receiver<usize>,
    open: TaskTracker,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    /// What is open is closed, and so is everything new.
    Block,
    /// What is open stays open and silent for ever; what is new is forwarded.
    Frozen(usize),
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
    /// Stands in front of the server that this URL leads to, by an address and a port.
    ///
    /// # Errors
    ///
    /// When the URL has no address and port, or no port can be had.
    pub async fn start(url: &str) -> io::Result<Self> {
        Self::welcoming(url, Welcome::Plain).await
    }

    /// Stands in front of a server, and does this to every connection first.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn welcoming(url: &str, welcome: Welcome) -> io::Result<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or(rest);
        let address = authority.rsplit('@').next().unwrap_or(authority);
        let target: SocketAddr = address.parse().map_err(io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = url.replacen(address, &listener.local_addr()?.to_string(), 1);
        let (mode, modes) = watch::channel(Mode::Forward);
        let (count, accepted) = watch::channel(0);
        let open = TaskTracker::new();
        open.close();
        let connections = open.clone();
        let task = tokio::spawn(async move {
            // Whoever waits for a connection that cannot be accepted learns of it by its own limit.
            while let Ok((client, _)) = listener.accept().await {
                let number = *count.borrow();
                count.send_replace(number + 1);
                // Each ends with its mode, or with the test's runtime.
                let forwarding = forward(client, welcome.clone(), target, number, modes.clone());
                connections.spawn(async move {
                    if let Err(error) = forwarding.await {
                        tracing::debug!(%error, "a connection through the proxy broke");
                    }
                });
            }
        });
        Ok(Self {
            url,
            mode,
            accepted,
            open,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// The URL with the proxy's address in place of the server's.
    pub fn url(&self) -> &str {
        &self.url
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

    /// How many connections have been opened so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until no connection is open.
    pub async fn deserted(&self) {
        self.open.wait().await;
    }
}

async fn forward(
    client: TcpStream,
    welcome: Welcome,
    target: SocketAddr,
    number: usize,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    if *modes.borrow() == Mode::Block {
        return Ok(());
    }
    let mut server = TcpStream::connect(target).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    // It fails when the client does not trust the certificate.
    let mut client = welcome.receive(client).await?;
    let copying = copy_bidirectional(&mut client, &mut server);
    tokio::pin!(copying);
    loop {
        let mode = *modes.borrow_and_update();
        let frozen = match mode {
            Mode::Forward => false,
            Mode::Block => return Ok(()),
            Mode::Frozen(until) => number < until,
        };
        tokio::select! {
            // A change comes before whatever is sent after it.
            biased;
            changed = modes.changed() => if changed.is_err() {
                return Ok(());
            },
            copied = &mut copying, if !frozen => return copied.map(drop),
        }
    }
}
