mod body;
mod config;
mod envelope;
mod link;
mod queue;
mod sender;

use std::sync::Arc;

use bytes::Bytes;
use tidings_postgres::Database;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use config::PostgresConfig;

use crate::postgres::envelope::Envelope;
use crate::postgres::link::PostgresLink;
use crate::postgres::queue::send_all;
use crate::postgres::sender::Sender;
use crate::remote::session::{Timing, keep_listening};
use crate::remote::{Patterns, Remote};
use crate::{Broker, Error, Options, Publisher, Subscriber, Subscription, Topic};

/// Messages that may wait to be sent before [`Publisher::publish`] makes its caller wait to queue.
const SEND_QUEUE: usize = 1024;

/// A broker over PostgreSQL's `LISTEN` and `NOTIFY`.
///
/// One connection listens, however many topics there are, and another one publishes: messages that
/// wait together share one transaction. Both are made when they are first needed, and made again when
/// they break. After a break every subscriber of a topic gets [`Lagged`](crate::Lagged) once the
/// topic arrives again: what was published in between is lost.
///
/// | what | is |
/// |---|---|
/// | channel | `tidings_` and the first 128 bits of the topic's SHA-256, in hex |
/// | a message of up to 5,990 bytes, with its topic | the notification itself, in base64url |
/// | a larger one | a row of `tidings_pubsub_bodies`; the notification has its number |
///
/// The table is created when it is first needed, which takes the right to create one. It is
/// `UNLOGGED`, and rows are deleted after a minute: it is no archive. A subscriber that cannot get a
/// row any more is told that it lags.
///
/// Publishing needs no session, so its URL may lead to `PgBouncer` in transaction mode. Listening
/// does: give it [a URL of its own](tidings_postgres::Config::with_listen_url) that leads to the server, the
/// primary.
///
/// Clones are the same broker. Dropping the last one closes it.
///
/// ```no_run
/// use tidings_postgres::Config;
/// use tidings_pubsub::{Namespace, Options, Postgres, Publisher, Subscriber};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Postgres::new(Config::new("postgres://tidings@127.0.0.1/tidings")?);
/// # let orders = Namespace::default().topic("orders").unwrap();
/// let mut subscription = broker.subscribe([orders.clone()], Options::default()).await?;
/// broker.publish(&orders, "order 7 was paid").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Postgres {
    owner: Arc<Owner>,
}

impl Postgres {
    /// A broker that is not connected yet.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub fn new(config: impl Into<PostgresConfig>) -> Self {
        let PostgresConfig {
            database: config,
            retention,
        } = config.into();
        let timing = Timing {
            answer: config.answer_limit(),
            health: config.health_interval(),
        };
        let remote = Arc::new(Remote::new(Patterns::Unsupported));
        let closing = CancellationToken::new();
        let (outgoing, queue) = mpsc::channel(SEND_QUEUE);
        let database = Database::new(config);
        let link = PostgresLink::new(database.clone(), Arc::clone(&remote));

        let tracker = TaskTracker::new();
        let listening = keep_listening(link, Arc::clone(&remote), timing);
        let delivering = Arc::clone(&remote).make_deliveries();
        let sending = send_all(queue, database.clone(), retention);
        let tasks = [
            tracker.spawn(closing.clone().run_until_cancelled_owned(listening)),
            tracker.spawn(closing.clone().run_until_cancelled_owned(delivering)),
            tracker.spawn(closing.clone().run_until_cancelled_owned(sending)),
        ];
        tracker.close();
        Self {
            owner: Arc::new(Owner {
                remote,
                closing,
                sender: Sender::new(database.clone(), outgoing),
                database,
                tracker,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }),
        }
    }
}

impl Publisher for Postgres {
    async fn publish(&self, topic: &Topic, payload: impl Into<Bytes> + Send) -> Result<(), Error> {
        let envelope = Envelope::new(topic, payload.into());
        self.owner.remote.check_open()?;
        let sending = self.owner.sender.send(envelope);
        let sent = self.owner.closing.run_until_cancelled(sending).await;
        sent.unwrap_or(Err(Error::Closed))
    }
}

impl Subscriber for Postgres {
    async fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> Result<Subscription, Error> {
        let topics = topics.into_iter().collect();
        self.owner.remote.subscribe(topics, options).await
    }
}

impl Broker for Postgres {
    async fn close(&self) {
        self.owner.remote.close();
        self.owner.closing.cancel();
        self.owner.tracker.wait().await;
        self.owner.database.disconnect();
    }
}

#[derive(Debug)]
struct Owner {
    remote: Arc<Remote>,
    closing: CancellationToken,
    database: Database,
    sender: Sender,
    tracker: TaskTracker,
    /// Those of the tracker, which end with the owner.
    _tasks: [AbortOnDropHandle<Option<()>>; 3],
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.remote.close();
        self.closing.cancel();
    }
}
