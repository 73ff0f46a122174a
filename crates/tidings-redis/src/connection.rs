use std::fmt;

use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

/// An open connection. It is closed once this and all clones of what it hands out are dropped.
pub struct Connection {
    multiplexed: MultiplexedConnection,
    broken: CancellationToken,
}

impl Connection {
    pub(crate) fn new(multiplexed: MultiplexedConnection, broken: CancellationToken) -> Self {
        Self {
            multiplexed,
            broken,
        }
    }

    /// What commands are sent with. Clones are the same connection; commands that are sent before
    /// others were answered are pipelined.
    pub fn multiplexed(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }

    /// Whether it is known to be broken.
    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Waits until it is known to be broken. A break that nobody reports is not noticed until a
    /// command goes unanswered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }
}

impl tidings_reconnect::Connection for Connection {
    fn is_broken(&self) -> bool {
        self.is_broken()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
