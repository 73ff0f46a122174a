mod arrivals;
mod channels;
mod config;
mod link;

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use config::RedisConfig;

use crate::redis::link::RedisLink;
use crate::remote::session::{Timing, keep_listening};
use crate::remote::{Patterns, Remote};
use crate::{Broker, Error, Options, Publisher, Subscriber, Subscription, Topic};

/// A broker over Redis 6 or newer, or Valkey.
///
/// One connection publishes and listens for everybody, however many topics there are (RESP3). It is
/// made when it is first needed, and made again when it breaks. After a break every subscriber of a
/// topic gets [`Lagged`](crate::Lagged) once the topic arrives again: what was published in between is
/// lost.
///
/// A topic is the channel `<prefix>:<topic>`; the payload is the message as it is. Redis relays
/// plain channels to all nodes of a cluster, so it is enough to be connected to any one of them, and
/// braces in a topic mean nothing. Channels do not belong to a database: two that share a server but
/// should not hear each other need different prefixes.
///
/// A [`Pattern`](crate::Pattern) is a subscription by pattern of Redis (`PSUBSCRIBE`): the server
/// compares each message of every topic with each of them. Redis sends a copy for the topic and one
/// for each pattern that matches; one of them is delivered.
///
/// Redis drops a connection that does not keep up (`client-output-buffer-limit pubsub`). This one
/// reads as fast as it can, whatever its subscribers do: they have mailboxes.
///
/// Clones are the same broker. Dropping the last one closes it.
///
/// ```no_run
/// use tidings_pubsub::{Namespace, Options, Publisher, Redis, Subscriber};
/// use tidings_redis::Config;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Redis::new(Config::new("redis://127.0.0.1/")?);
/// # let orders = Namespace::default().topic("orders").unwrap();
/// let mut subscription = broker.subscribe([orders.clone()], Options::default()).await?;
/// broker.publish(&orders, "order 7 was paid").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Redis {
    owner: Arc<Owner>,
}

impl Redis {
    /// A broker that is not connected yet.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that listens needs.
    pub fn new(config: impl Into<RedisConfig>) -> Self {
        let config = config.into();
        let timing = Timing {
            answer: config.server.answer_limit(),
            health: config.server.health_interval(),
        };
        let remote = Arc::new(Remote::new(Patterns::Supported));
        let closing = CancellationToken::new();
        let link = RedisLink::new(config, Arc::clone(&remote));
        let listening = keep_listening(link.clone(), Arc::clone(&remote), timing);
        let tracker = TaskTracker::new();
        let delivering = Arc::clone(&remote).make_deliveries();
        let tasks = [
            tracker.spawn(closing.clone().run_until_cancelled_owned(listening)),
            tracker.spawn(closing.clone().run_until_cancelled_owned(delivering)),
        ];
        tracker.close();
        Self {
            owner: Arc::new(Owner {
                remote,
                closing,
                link,
                tracker,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }),
        }
    }
}

impl Publisher for Redis {
    async fn publish(&self, topic: &Topic, payload: impl Into<Bytes> + Send) -> Result<(), Error> {
        let payload = payload.into();
        self.owner.remote.check_open()?;
        self.owner
            .closing
            .run_until_cancelled(self.owner.link.publish(topic, &payload))
            .await
            .unwrap_or(Err(Error::Closed))
    }
}

impl Subscriber for Redis {
    async fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> Result<Subscription, Error> {
        let topics = topics.into_iter().collect();
        self.owner.remote.subscribe(topics, options).await
    }
}

impl Broker for Redis {
    async fn close(&self) {
        self.owner.remote.close();
        self.owner.closing.cancel();
        self.owner.tracker.wait().await;
        self.owner.link.hang_up();
    }
}

#[derive(Debug)]
struct Owner {
    remote: Arc<Remote>,
    closing: CancellationToken,
    link: RedisLink,
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
