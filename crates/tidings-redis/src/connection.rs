use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// An open connection. It is closed once this and all clones of [`multiplexed`](Self::multiplexed) are
/// dropped.
pub struct Connection {
    multiplexed: MultiplexedConnection,
    broken: CancellationToken,
    /// When its server was the primary, as far as is known.
    checked: Mutex<Instant>,
}

impl Connection {
    pub(crate) fn new(multiplexed: MultiplexedConnection, broken: CancellationToken) -> Self {
        Self {
            multiplexed,
            broken,
            checked: Mutex::new(Instant::now()),
        }
    }

    /// [Pings](Self::ping) the server if the last check is longer ago than this, and no other call is at it.
    pub(crate) async fn check(&self, interval: Duration) -> Result<(), Error> {
        let Ok(mut checked) = self.checked.try_lock() else {
            return Ok(());
        };
        if checked.elapsed() >= interval {
            self.ping().await?;
            *checked = Instant::now();
        }
        Ok(())
    }

    /// Sends commands. Clones share the connection; commands that are sent before the replies to others
    /// have arrived are pipelined.
    pub fn multiplexed(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }

    /// Whether it is known to be broken.
    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Checks that the server replies, and that it is still the primary: a replica takes messages that
    /// reach only its own subscribers.
    ///
    /// # Errors
    ///
    /// [`Error::NotPrimary`] when the server has become a replica, [`Error::NoReply`] when it does
    /// not reply.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn ping(&self) -> Result<(), Error> {
        // Unlike `ROLE` and `INFO` it needs no permission.
        let greeting: Result<Value, _> = cmd("HELLO").query_async(&mut self.multiplexed()).await;
        match greeting.map_err(Error::from) {
            Ok(greeting) if is_replica(&greeting) => Err(Error::NotPrimary),
            // A refusal is a reply too.
            Ok(_) | Err(Error::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until it is known to be broken. A break that is not reported is noticed only when a command
    /// gets no reply.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Waits until it cannot be used any more: it broke, its server does not reply to a health check, or
    /// has become a replica. Returns why, if that is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn unusable(&self, config: &Config) -> Option<Error> {
        let mut health = config.timing().health_checks();
        loop {
            tokio::select! {
                () = self.broken() => return None,
                _ = health.tick() => {
                    if let Err(error) = self.ping().await {
                        return Some(error);
                    }
                }
            }
        }
    }
}

/// Whether a [greeting](https://redis.io/docs/latest/commands/hello/) comes from a replica.
fn is_replica(greeting: &Value) -> bool {
    let text = |value: &Value, expected: &[&[u8]]| match value {
        Value::BulkString(text) => expected.contains(&&text[..]),
        Value::SimpleString(text) => expected.contains(&text.as_bytes()),
        _ => false,
    };
    let Value::Map(entries) = greeting else {
        return false;
    };
    entries
        .iter()
        .any(|(key, value)| text(key, &[b"role"]) && text(value, &[b"replica", b"slave"]))
}

impl tidings_reconnect::Breakable for Connection {
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
