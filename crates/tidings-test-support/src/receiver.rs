use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::authority::{self, Reception};
use crate::journal::{self, Journal};
use crate::{Authority, Closed, Request, Script, Tls, connection};

/// Connections that are served at a time, unless set otherwise.
const MAX_CONNECTIONS: usize = 4096;

/// A server that treats requests as its [`Script`] says, and keeps what it got.
///
/// It listens on a free port of 127.0.0.1, unless another address is given. Dropping it stops it and resets
/// or closes its connections at once.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    authority: Option<Authority>,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// How to start a [`Receiver`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    script: Script,
    address: SocketAddr,
    tls: Option<Tls>,
    kept: usize,
}

/// What the connections share with the receiver.
#[derive(Debug)]
pub(crate) struct Shared {
    script: Mutex<Script>,
    pub(crate) journal: Journal,
}

impl Receiver {
    /// How many of the last requests, and of the last ended connections, can be asked for, unless the builder
    /// says otherwise.
    pub const KEPT: usize = journal::KEPT;

    /// Starts a receiver without TLS.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(script: impl Into<Script>) -> io::Result<Self> {
        Self::builder(script).start().await
    }

    /// A receiver to configure further.
    pub fn builder(script: impl Into<Script>) -> Builder {
        Builder {
            script: script.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            kept: Receiver::KEPT,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash: `https` with TLS, `http` without.
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.authority {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}{path}", self.address)
    }

    /// The URL of a path with `https`, whether the receiver has TLS or not.
    pub fn https_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The authority that a sender must trust; `None` without TLS.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Treats requests whose head has not arrived yet by another script.
    pub fn switch_to(&self, script: impl Into<Script>) {
        *self.shared.lock_script() = script.into();
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.journal.connections()
    }

    /// The last requests, oldest first: at most [`KEPT`](Self::KEPT), unless the builder says otherwise.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.journal.requests()
    }

    /// Waits until so many connections were made.
    ///
    /// # Panics
    ///
    /// After a minute, so that a test that waits in vain fails with a reason.
    pub async fn connected(&self, number: u64) {
        self.shared.journal.connected(number).await;
    }

    /// Waits until the request of this number, counted from 1, has been read, and returns it.
    ///
    /// Requests count in the order in which they were read. Those that break off, or that are no
    /// HTTP, do not count.
    ///
    /// # Panics
    ///
    /// After a minute. When it is no longer kept, or the number is 0.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn request(&self, number: u64) -> Request {
        self.shared.journal.request(number).await
    }

    /// Waits until so many connections have ended, on whichever side, and returns the last of
    /// them.
    ///
    /// # Panics
    ///
    /// After a minute. When it is no longer kept, or the number is 0.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn closed(&self, number: u64) -> Closed {
        self.shared.journal.closed(number).await
    }
}

impl Builder {
    /// Listens on this address; port 0 takes a free one.
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Speaks TLS, with a fault or without.
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Keeps so many of the last requests, and of the last ended connections, for those who ask.
    pub fn with_kept(mut self, kept: usize) -> Self {
        self.kept = kept;
        self
    }

    /// Starts the receiver.
    ///
    /// # Errors
    ///
    /// When the address cannot be had, or a certificate cannot be made.
    pub async fn start(self) -> io::Result<Receiver> {
        let (authority, reception) = match self.tls {
            Some(tls) => {
                let (authority, reception) = authority::prepare(tls)?;
                (Some(authority), reception)
            }
            None => (None, Reception::Plain),
        };
        let listener = TcpListener::bind(self.address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(self.script),
            journal: Journal::new(self.kept),
        });
        let task = tokio::spawn(listen(listener, reception, Arc::clone(&shared)));
        Ok(Receiver {
            address,
            authority,
            shared,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

impl Shared {
    /// The script as it is now.
    pub(crate) fn script(&self) -> Script {
        self.lock_script().clone()
    }

    fn lock_script(&self) -> std::sync::MutexGuard<'_, Script> {
        // Nothing that can panic runs under the lock.
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections until it is dropped, which ends them too.
async fn listen(listener: TcpListener, reception: Reception, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    let number = shared.journal.add_connection();
                    connections.spawn(receive(socket, number, reception.clone(), Arc::clone(&shared)));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: does not spin until one is free.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

async fn receive(socket: TcpStream, number: u64, reception: Reception, shared: Arc<Shared>) {
    let closed = match reception {
        Reception::Plain => connection::serve(socket, number, &shared).await,
        Reception::Stalled => connection::stall(socket, number).await,
        Reception::Tls(acceptor) => match connection::handshake(&acceptor, socket).await {
            Some(socket) => connection::serve(socket, number, &shared).await,
            None => Closed::unused(number),
        },
    };
    shared.journal.add_closed(closed);
}
