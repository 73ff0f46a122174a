//! What can happen to the server of a store, in the same words for each kind of server.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

use crate::{PostgresServer, Proxy, RedisServer};

/// What an [`Outage`] does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server crashes and loses what is not on disk.
    Kill,
    /// All connections are closed, and new ones are refused.
    Cut,
    /// The server does nothing; its connections stay open.
    Freeze,
    /// The server refuses whatever needs room. It continues with the rest.
    Fill,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Cut, Self::Freeze, Self::Fill];
}

/// A private server that a test can break, and the way to it.
///
/// A suite of faults is written once over this trait and runs on every store:
///
/// ```no_run
/// # async fn works(_url: &str) {}
/// # async fn fails_by_name(_url: &str) {}
/// use tidings_test_support::{Fault, Outage};
///
/// async fn every_fault_is_survived(outage: &mut dyn Outage) -> std::io::Result<()> {
///     for fault in Fault::ALL {
///         outage.begin(fault).await?;
///         fails_by_name(outage.url()).await;
///         outage.restore().await?;
///         works(outage.url()).await;
///     }
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait Outage: Debug + Send + Sync {
    /// The URL to connect to.
    fn url(&self) -> &str;

    /// A second way to the server, which a [`Fault::Cut`] leaves open.
    fn direct_url(&self) -> String;

    /// Begins a fault, after it has ended the one before.
    async fn begin(&mut self, fault: Fault) -> io::Result<()>;

    /// Ends the fault, and waits until the server can be connected to. Without a fault it does
    /// nothing.
    async fn restore(&mut self) -> io::Result<()>;

    /// Crashes the server: it loses what is not on disk, and does not run until it is restored.
    async fn kill(&mut self) -> io::Result<()> {
        self.begin(Fault::Kill).await
    }

    /// Closes all connections, waits until they are closed, and refuses new ones until it is restored.
    async fn cut(&mut self) -> io::Result<()> {
        self.begin(Fault::Cut).await
    }

    /// Stops the server until it is restored; its connections stay open and silent.
    async fn freeze(&mut self) -> io::Result<()> {
        self.begin(Fault::Freeze).await
    }

    /// Lets the server refuse whatever needs room, until it is restored.
    async fn fill(&mut self) -> io::Result<()> {
        self.begin(Fault::Fill).await
    }
}

/// A private Redis, durable, behind a proxy.
pub type RedisOutage = Breakable<RedisServer>;

/// A private PostgreSQL behind a proxy.
pub type PostgresOutage = Breakable<PostgresServer>;

/// A private server behind a proxy: the [`Outage`] of both engines.
#[derive(Debug)]
pub struct Breakable<S> {
    server: S,
    proxy: Proxy,
    fault: Option<Fault>,
}

impl Breakable<RedisServer> {
    /// Starts a server that replies once a change is on disk.
    ///
    /// # Errors
    ///
    /// When the server or the proxy cannot be started.
    pub async fn start() -> io::Result<Self> {
        Self::before(RedisServer::start_durable().await?).await
    }
}

impl Breakable<PostgresServer> {
    /// Starts a server whose commits wait for the disk.
    ///
    /// # Errors
    ///
    /// When the server or the proxy cannot be started.
    pub async fn start() -> io::Result<Self> {
        Self::before(PostgresServer::start()?).await
    }
}

impl<S: Server> Breakable<S> {
    async fn before(server: S) -> io::Result<Self> {
        let proxy = Proxy::start(&server.url()).await?;
        Ok(Self {
            server,
            proxy,
            fault: None,
        })
    }

    /// The server.
    pub fn server(&self) -> &S {
        &self.server
    }

    /// The way to it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

#[async_trait]
impl<S: Server> Outage for Breakable<S> {
    fn url(&self) -> &str {
        self.proxy.url()
    }

    fn direct_url(&self) -> String {
        self.server.url()
    }

    async fn begin(&mut self, fault: Fault) -> io::Result<()> {
        self.restore().await?;
        self.fault = Some(fault);
        match fault {
            Fault::Kill => self.server.crash(),
            Fault::Cut => {
                self.proxy.block();
                self.proxy.deserted().await;
                Ok(())
            }
            Fault::Freeze => self.server.freeze(),
            Fault::Fill => self.server.fill(),
        }
    }

    async fn restore(&mut self) -> io::Result<()> {
        match self.fault.take() {
            Some(Fault::Kill) => self.server.start_again().await,
            Some(Fault::Cut) => {
                self.proxy.restore();
                Ok(())
            }
            Some(Fault::Freeze) => self.server.thaw(),
            Some(Fault::Fill) => self.server.make_room(),
            None => Ok(()),
        }
    }
}

/// What a server of its own can be made to do.
#[async_trait]
pub trait Server: Debug + Send + Sync + 'static {
    /// Where it is.
    fn url(&self) -> String;

    /// Ends it at once.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    fn crash(&mut self) -> io::Result<()>;

    /// Starts it again, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    async fn start_again(&mut self) -> io::Result<()>;

    /// Stops its processes.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    fn freeze(&self) -> io::Result<()>;

    /// Lets them continue.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    fn thaw(&self) -> io::Result<()>;

    /// Refuses what needs room.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    fn fill(&self) -> io::Result<()>;

    /// Has room again.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    fn make_room(&self) -> io::Result<()>;
}

#[async_trait]
impl Server for RedisServer {
    fn url(&self) -> String {
        self.url()
    }

    fn crash(&mut self) -> io::Result<()> {
        self.stop()
    }

    async fn start_again(&mut self) -> io::Result<()> {
        self.start_again().await
    }

    fn freeze(&self) -> io::Result<()> {
        self.freeze()
    }

    fn thaw(&self) -> io::Result<()> {
        self.thaw()
    }

    fn fill(&self) -> io::Result<()> {
        self.fill()
    }

    fn make_room(&self) -> io::Result<()> {
        self.make_room()
    }
}

#[async_trait]
impl Server for PostgresServer {
    fn url(&self) -> String {
        self.url()
    }

    fn crash(&mut self) -> io::Result<()> {
        PostgresServer::crash(self)
    }

    async fn start_again(&mut self) -> io::Result<()> {
        PostgresServer::start_again(self)
    }

    fn freeze(&self) -> io::Result<()> {
        self.freeze()
    }

    fn thaw(&self) -> io::Result<()> {
        self.thaw()
    }

    fn fill(&self) -> io::Result<()> {
        self.fill()
    }

    fn make_room(&self) -> io::Result<()> {
        self.make_room()
    }
}
