use std::sync::Arc;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tidings_reconnect::Slot;

use crate::{Config, Connection, Error};

/// A Redis server, over one shared connection.
///
/// The connection is made when it is first needed, and made again when it broke. Calls are not retried:
/// the caller knows whether the operation is idempotent.
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

    /// Runs commands on the shared connection, and returns their outcome. Each reply may take up to the
    /// reply limit.
    ///
    /// Commands of other callers come in between. A command that blocks would delay all of them: it needs
    /// [a connection of its own](Config::connect).
    ///
    /// A server that becomes a replica keeps its connections, and goes on replying to commands that only read.
    /// So a call asks first whether it still is the primary, if the last such check is longer ago than the
    /// [health interval](Config::with_health_interval).
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection, [`Error::NotPrimary`] when there is only a replica,
    /// [`Error::Refused`] when the server refused a command, [`Error::NoReply`] when the server does
    /// not reply in time. After a break, and when the server has become a replica, the next call
    /// reconnects.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run all commands, some or none.
    pub async fn run<T, F>(
        &self,
        commands: impl FnOnce(MultiplexedConnection) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let connection = self.connection().await?;
        let done = commands(connection.multiplexed()).await;
        done.map_err(|error| {
            let error = Error::from(error);
            if error.may_have_been_done() || error.is_read_only() {
                self.shared.slot.discard(&connection);
            }
            error
        })
    }

    /// The connection, if it still leads to the primary.
    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let Shared { config, slot } = &*self.shared;
        let connection = slot.connection(|| config.connect(drop)).await?;
        match connection.check(config.health_interval()).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                slot.discard(&connection);
                Err(match error {
                    // The commands were not sent yet.
                    Error::NoReply(reason) => Error::Unsent(reason),
                    error => error,
                })
            }
        }
    }

    /// Closes the connection once the calls that use it have ended. The next call reconnects.
    pub fn disconnect(&self) {
        self.shared.slot.clear();
    }
}
