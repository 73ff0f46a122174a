//! A way to a server that can be cut, frozen and blocked.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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

impl Proxy {
    /// Stands in front of the server that this URL leads to.
    pub(crate) async fn start(url: &str) -> Self {
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
                connections.spawn(forward(client, target, number, modes.clone()));
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
    mut client: TcpStream,
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
