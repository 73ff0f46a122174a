//! A way to a server that can be cut, frozen and blocked.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Forwards connections to a server until told otherwise.
pub(crate) struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    accepted: watch::Receiver<usize>,
    open: TaskTracker,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    /// What is open is closed, and so is everything new.
    Block,
    /// What is open stays open and silent for ever; what is new is forwarded.
    Frozen(usize),
}

/// What a proxy does before it forwards.
#[derive(Clone)]
#[cfg_attr(
    not(all(feature = "postgres", feature = "redis")),
    expect(dead_code, reason = "the tests with TLS are about both engines")
)]
pub(crate) enum Welcome {
    Plain,
    /// TLS from the first byte.
    Tls(TlsAcceptor),
    /// TLS once it has been asked for, in the manner of PostgreSQL.
    TlsOnRequest(TlsAcceptor),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Welcome {
    async fn receive(self, mut client: TcpStream) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Plain => Ok(Box::new(client)),
            Self::Tls(acceptor) => Ok(Box::new(acceptor.accept(client).await?)),
            Self::TlsOnRequest(acceptor) => {
                // https://www.postgresql.org/docs/current/protocol-message-formats.html
                let mut request = [0; 8];
                client.read_exact(&mut request).await?;
                assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47], "an SSLRequest");
                client.write_all(b"S").await?;
                Ok(Box::new(acceptor.accept(client).await?))
            }
        }
    }
}

impl Proxy {
    /// Stands in front of the server that this URL leads to.
    pub(crate) async fn start(url: &str) -> Self {
        Self::welcoming(url, Welcome::Plain).await
    }

    pub(crate) async fn welcoming(url: &str, welcome: Welcome) -> Self {
        let rest = url.split_once("://").unwrap().1;
        let authority = rest.split('/').next().unwrap();
        let target = authority.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = url.replacen(&target, &address.to_string(), 1);
        let (mode, modes) = watch::channel(Mode::Forward);
        let (count, accepted) = watch::channel(0);
        let open = TaskTracker::new();
        open.close();
        let connections = open.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = *count.borrow();
                count.send_replace(number + 1);
                let target = target.parse().unwrap();
                // Each ends with its mode, or with the test's runtime.
                let (welcome, modes) = (welcome.clone(), modes.clone());
                connections.spawn(forward(client, welcome, target, number, modes));
            }
        });
        Self {
            url,
            mode,
            accepted,
            open,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Closes all connections, and lets none in until it is [restored](Self::restore).
    pub(crate) fn block(&self) {
        self.mode.send_replace(Mode::Block);
    }

    /// Lets connections in again.
    pub(crate) fn restore(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Forwards nothing more on the connections that are open now.
    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen(self.accepted()));
    }

    /// How many connections have been opened so far.
    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until no connection is open.
    pub(crate) async fn deserted(&self) {
        self.open.wait().await;
    }
}

async fn forward(
    client: TcpStream,
    welcome: Welcome,
    target: SocketAddr,
    number: usize,
    mut modes: watch::Receiver<Mode>,
) {
    if *modes.borrow() == Mode::Block {
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let Ok(mut client) = welcome.receive(client).await else {
        // It does not trust the certificate.
        return;
    };
    let copying = copy_bidirectional(&mut client, &mut server);
    tokio::pin!(copying);
    loop {
        let mode = *modes.borrow_and_update();
        let frozen = match mode {
            Mode::Forward => false,
            Mode::Block => return,
            Mode::Frozen(until) => number < until,
        };
        tokio::select! {
            _ = &mut copying, if !frozen => return,
            changed = modes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
