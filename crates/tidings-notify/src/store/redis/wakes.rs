//! Wake-ups for the processes that share another store.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{RedisError, pipe};
use tidings_redis::{Config, Error};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::WAKES;
use super::listen::keep_listening;
use crate::store::message;
use crate::{StoreError, Wake, WakeChannel, WakeSender, Wakes};

/// Wake-ups over a Redis server, for the processes that share a store elsewhere:
#[cfg_attr(
    feature = "postgres",
    doc = "[`with_wake_channel`](crate::postgres::PostgresOptions::with_wake_channel)."
)]
#[cfg_attr(not(feature = "postgres"), doc = "the store takes it as an option.")]
///
/// It keeps nothing on the server. One connection publishes and listens, whatever the number of streams;
/// while it is broken, sending fails. Clones share it.
///
/// ```no_run
/// use tidings_notify::redis::{Config, RedisWakes};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let wakes = RedisWakes::new(Config::new("redis://127.0.0.1/")?, "production");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisWakes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: String,
    /// What its messages begin with, so that it can ignore its own.
    sender: String,
    connection: watch::Receiver<Option<MultiplexedConnection>>,
    wakes: WakeSender,
    _listening: AbortOnDropHandle<()>,
}

impl RedisWakes {
    /// Connects in the background, to the channel of this name on the server. Every process that shares
    /// the store uses the same name, and each store has a name of its own. The number of the database in
    /// the URL makes no difference.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its task needs.
    pub fn new(config: Config, channel: impl Into<String>) -> Self {
        Self::on(config, channel.into())
    }

    fn on(config: Config, channel: String) -> Self {
        let sender = message::sender();
        let wakes = WakeSender::new(WAKES);
        let (connected, connection) = watch::channel(None);
        let own = sender.clone();
        let read = move |text: &str| message::read(text, &own);
        let listening = keep_listening(config, channel.clone(), read, wakes.clone(), connected);
        Self {
            shared: Arc::new(Shared {
                channel,
                sender,
                connection,
                wakes,
                _listening: AbortOnDropHandle::new(tokio::spawn(listening.boxed())),
            }),
        }
    }
}

/// The connection is broken, and is being made again.
#[derive(Debug, thiserror::Error)]
#[error("there is no connection to the Redis server at the moment")]
struct NotConnected;

#[async_trait]
impl WakeChannel for RedisWakes {
    async fn send(&self, wakes: &[Wake]) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let Some(mut connection) = shared.connection.borrow().clone() else {
            return Err(StoreError::Unavailable(NotConnected.into()));
        };
        let mut publish = pipe();
        for message in message::write(&shared.sender, wakes) {
            publish.publish(&shared.channel, message).ignore();
        }
        let published: Result<(), RedisError> = publish.query_async(&mut connection).await;
        Ok(published.map_err(Error::from)?)
    }

    fn wakes(&self) -> Wakes {
        self.shared.wakes.receiver()
    }
}
