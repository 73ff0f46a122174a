//! The broker over a Redis server.

mod arrivals;
mod channels;
mod connection;
mod listen;
mod options;
mod publish;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use options::RedisOptions;
pub use tidings_redis::Config;

use crate::broker::redis::connection::SharedConnection;
use crate::broker::redis::publish::publish;
use crate::broker::remote::session::keep_listening;
use crate::broker::remote::{Patterns, Remote};
use crate::{
    Broker, Error, Publisher, SubscribeOptions, Subscriber, Subscription, Topic, telemetry,
};

/// A broker over Redis 6 or newer, or Valkey.
///
/// One connection publishes and listens, however many topics there are (RESP3). It is made when it is
/// first needed, and made again when it breaks, or when its server has become a replica, which is noticed
/// within the [health interval](tidings_redis::Config::with_health_interval). After a break every
/// subscriber of a topic gets [`Lagged`](crate::Lagged) once the topic arrives again: messages that were
/// published in between are lost.
///
/// A topic is the channel `<prefix>:<topic>`; the payload is the message as it is. Redis relays
/// plain channels to all nodes of a cluster, so a connection to any primary is enough, and braces in
/// a topic have no meaning. Channels do not belong to a database: two systems on one server need different
/// prefixes to be separate.
///
/// A [`Pattern`](crate::Pattern) is a subscription by pattern of Redis (`PSUBSCRIBE`): the server
/// compares each message of every topic with each of them. Redis sends a copy for the topic and one
/// for each pattern that matches; one of them is delivered.
///
/// Redis drops a connection that does not keep up (`client-output-buffer-limit pubsub`). This one
/// reads as fast as it can, whatever its subscribers do: they have mailboxes.
///
/// Clones are the same broker. Dropping the last one closes it, and so does the end of the runtime that it was made on.
///
/// ```no_run
/// use tidings_pubsub::redis::{Config, RedisBroker, RedisOptions};
/// use tidings_pubsub::{Namespace, Publisher, SubscribeOptions, Subscriber};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("redis://127.0.0.1/")?;
/// let broker = RedisBroker::open(config, RedisOptions::default());
/// # let orders = Namespace::default().topic("orders").unwrap();
/// let mut subscription = broker.subscribe(vec![orders.clone()], SubscribeOptions::default()).await?;
/// broker.publish(&orders, "order 7 was paid".into()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisBroker {
    owner: Arc<Owner>,
}

impl RedisBroker {
    /// Makes a broker, which connects when it is first used.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that listens needs.
    pub fn open(config: Config, options: RedisOptions) -> Self {
        let timing = config.timing();
        let remote = Arc::new(Remote::new(Patterns::Supported));
        let closing = CancellationToken::new();
        let connection = SharedConnection::new(config, options, Arc::clone(&remote));
        let listening = keep_listening(connection.clone(), Arc::clone(&remote), timing);
        let tracker = TaskTracker::new();
        let delivering = Arc::clone(&remote).make_postings();
        let tasks = [
            tracker.spawn(closing.clone().run_until_cancelled_owned(listening)),
            tracker.spawn(closing.clone().run_until_cancelled_owned(delivering)),
        ];
        tracker.close();
        Self {
            owner: Arc::new(Owner {
                remote,
                closing,
                connection,
                tracker,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }),
        }
    }
}

#[async_trait]
impl Publisher for RedisBroker {
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error> {
        let Owner {
            remote,
            closing,
            connection,
            ..
        } = &*self.owner;
        let publishing = async {
            remote.check_open()?;
            let connecting = closing.run_until_cancelled(connection.line_to_primary());
            let line = connecting.await.ok_or(Error::Closed)??;
            let sending = publish(connection, &line, topic, &payload);
            let sent = closing.run_until_cancelled(sending).await;
            sent.unwrap_or_else(|| Err(Error::closed_meanwhile()))
        };
        let published = publishing.await;
        telemetry::published(&published);
        published
    }
}

#[async_trait]
impl Subscriber for RedisBroker {
    async fn subscribe(
        &self,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        self.owner.remote.subscribe(topics, options).await
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn close(&self) {
        self.owner.remote.close();
        self.owner.closing.cancel();
        self.owner.tracker.wait().await;
        self.owner.connection.close();
    }
}

#[derive(Debug)]
struct Owner {
    remote: Arc<Remote>,
    closing: CancellationToken,
    connection: SharedConnection,
    tracker: TaskTracker,
    /// Those of the tracker, which end with the owner.
    _tasks: [AbortOnDropHandle<Option<()>>; 2],
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.remote.close();
        self.closing.cancel();
    }
}
