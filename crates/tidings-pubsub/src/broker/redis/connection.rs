use std::sync::{Arc, Mutex, PoisonError};

use tidings_reconnect::Slot;
use tidings_redis::{Config, Connection, Error as ServerError};
use tokio::time::Instant;

use crate::broker::redis::RedisOptions;
use crate::broker::redis::arrivals::Arrivals;
use crate::broker::redis::channels::Channels;
use crate::broker::remote::Remote;

/// The one connection, which publishes, and listens as soon as there is a topic. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct SharedConnection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    channels: Channels,
    remote: Arc<Remote>,
    slot: Slot<Line, ServerError>,
}

/// An open connection, and what arrives on it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) arrivals: Arc<Arrivals>,
    /// When its server was seen to be the primary.
    checked: Mutex<Instant>,
}

impl Line {
    /// Checks that the server replies and is the primary.
    pub(super) async fn check(&self) -> Result<(), ServerError> {
        let begun = Instant::now();
        self.connection.ping().await?;
        // Nothing that can panic runs under the lock.
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        Ok(())
    }

    fn checked(&self) -> Instant {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedConnection {
    pub(super) fn new(config: Config, options: RedisOptions, remote: Arc<Remote>) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                channels: Channels::new(options.prefix),
                remote,
                slot: Slot::new(),
            }),
        }
    }

    /// The names that topics and patterns have on the server.
    pub(super) fn channels(&self) -> &Channels {
        &self.shared.channels
    }

    /// The connection, which is made if none works.
    pub(super) async fn line(&self) -> Result<Arc<Line>, ServerError> {
        self.shared.slot.connection(|| self.connect()).await
    }

    /// The connection, to a server that was the primary within the health interval: a replica accepts
    /// messages, and they reach no subscriber.
    pub(super) async fn line_to_primary(&self) -> Result<Arc<Line>, ServerError> {
        let line = self.line().await?;
        if line.checked().elapsed() < self.shared.config.health_interval() {
            return Ok(line);
        }
        match line.check().await {
            Ok(()) => Ok(line),
            Err(error) => {
                self.discard(&line);
                match error {
                    // A new connection may lead to another server.
                    ServerError::NotPrimary => self.line().await,
                    other => Err(other),
                }
            }
        }
    }

    /// Gives up this connection; the next call makes another.
    pub(super) fn discard(&self, line: &Arc<Line>) {
        self.shared.slot.discard(line);
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        self.shared.slot.clear();
    }

    async fn connect(&self) -> Result<Line, ServerError> {
        let arrivals = Arrivals::new(self.channels().clone(), Arc::clone(&self.shared.remote));
        let arrivals = Arc::new(arrivals);
        let taking = Arc::clone(&arrivals);
        let push = move |push| taking.take(push);
        Ok(Line {
            connection: self.shared.config.connect(push).await?,
            arrivals,
            checked: Mutex::new(Instant::now()),
        })
    }
}

impl tidings_reconnect::Breakable for Line {
    fn is_broken(&self) -> bool {
        self.connection.is_broken()
    }
}
