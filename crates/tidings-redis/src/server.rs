use std::sync::Arc;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tidings_reconnect::Slot;

use crate::{Config, Connection, Error};

/// A Redis server, over one connection that all share.
///
/// The connection is made when it is first needed, and made again when it broke. Nothing is tried
/// again by itself: whoever asked knows whether twice is as good as once.
///
/// Clones share the connection. It is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    slot: Slot<Connection, Error>,
}

impl Server {
    /// A server that is not connected to yet.
    pub fn new(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                slot: Slot::new(),
            }),
        }
    }

    /// Where it is.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Runs commands on the shared connection, and waits for what became of them. Each answer may
    /// take up to its limit.
    ///
    /// What others run comes in between, and a command that blocks would hold up everybody: it needs
    /// [a connection of its own](Config::connect).
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection, [`Error::Refused`] when the server said no,
    /// [`Error::Unanswered`] when there is no word. The next call connects again when this one found
    /// the connection broken, or its server turned into a replica.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have done what it was to do, or a part of it.
    pub async fn run<T, F>(
        &self,
        commands: impl FnOnce(MultiplexedConnection) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let Shared { config, slot } = &*self.shared;
        let connection = slot.connection(|| config.connect(drop)).await?;
        let done = commands(connection.multiplexed()).await;
        done.map_err(|error| {
            let error = Error::from(error);
            if error.may_have_been_done() || error.is_read_only() {
                slot.discard(&connection);
            }
            error
        })
    }

    /// Closes the connection once those that use it now are done. The next use makes another.
    pub fn disconnect(&self) {
        self.shared.slot.clear();
    }
}
