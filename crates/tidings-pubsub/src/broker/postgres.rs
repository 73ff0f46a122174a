//! The broker over a PostgreSQL database.

mod body;
mod channels;
mod envelope;
mod listen;
mod options;
mod publish;
mod queue;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tidings_postgres::Database;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use options::PostgresOptions;
pub use tidings_postgres::{Config, tokio_postgres};

use crate::broker::postgres::envelope::Envelope;
use crate::broker::postgres::listen::PostgresLink;
use crate::broker::postgres::publish::Sender;
use crate::broker::postgres::queue::send_all;
use crate::broker::remote::session::keep_listening;
use crate::broker::remote::{Patterns, Remote};
use crate::{
    Broker, Error, Publisher, SubscribeOptions, Subscriber, Subscription, Topic, telemetry,
};

/// Messages that may wait to be sent before [`Publisher::publish`] makes its caller wait to queue.
const SEND_QUEUE: usize = 1024;

/// A broker over PostgreSQL's `LISTEN` and `NOTIFY`.
///
/// One connection listens, however many topics there are, another one publishes, and a third one fetches
/// large messages. Messages that wait together share one transaction. Each connection is made when it is
/// first needed, and made again when it breaks or when its server is no longer the primary. After a break
/// every subscriber of a topic gets [`Lagged`](crate::Lagged) once the topic arrives again: messages that
/// were published in between are lost.
///
/// | what | is |
/// |---|---|
/// | channel | `tidings_` and the first 128 bits of the topic's SHA-256, in hex |
/// | a message of up to 5,990 bytes, with its topic | the notification itself, in base64url |
/// | a larger one | a row of `tidings_pubsub_bodies`; the notification has its number |
///
/// The table is created when it is first needed, which takes the right to create one. It is
/// `UNLOGGED`, and rows are deleted after a minute, by every process that publishes or fetches: it is
/// not an archive. A subscriber that comes too late for a row gets `Lagged`.
///
/// Publishing needs no session, so its URL may lead to `PgBouncer` in transaction mode. Listening
/// does: give it [a URL of its own](tidings_postgres::Config::with_listen_url) that leads to the server, the
/// primary.
///
/// Clones are the same broker. Dropping the last one closes it, and so does the end of the runtime that it was made on.
///
/// ```no_run
/// use tidings_pubsub::postgres::{Config, PostgresBroker, PostgresOptions};
/// use tidings_pubsub::{Namespace, Publisher, SubscribeOptions, Subscriber};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("postgres://tidings@127.0.0.1/tidings")?;
/// let broker = PostgresBroker::open(config, PostgresOptions::default());
/// # let orders = Namespace::default().topic("orders").unwrap();
/// let mut subscription = broker.subscribe(vec![orders.clone()], SubscribeOptions::default()).await?;
/// broker.publish(&orders, "order 7 was paid".into()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresBroker {
    owner: Arc<Owner>,
}

impl PostgresBroker {
    /// Makes a broker, which connects when it is first used.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub fn open(config: Config, options: PostgresOptions) -> Self {
        let timing = config.timing();
        let remote = Arc::new(Remote::new(Patterns::Unsupported));
        let closing = CancellationToken::new();
        let (outgoing, queue) = mpsc::channel(SEND_QUEUE);
        let database = Database::new(config.clone());
        let used = Arc::new(Notify::new());
        let link = PostgresLink::new(config, Arc::clone(&remote), Arc::clone(&used));

        let tracker = TaskTracker::new();
        let listening = keep_listening(link, Arc::clone(&remote), timing);
        let delivering = Arc::clone(&remote).make_postings();
        let sending = send_all(
            queue,
            database.clone(),
            options.retention,
            Arc::clone(&used),
        );
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
                sender: Sender::new(database.clone(), outgoing, used),
                database,
                tracker,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }),
        }
    }
}

#[async_trait]
impl Publisher for PostgresBroker {
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error> {
        let Owner {
            remote,
            closing,
            sender,
            ..
        } = &*self.owner;
        let envelope = Envelope::new(topic, payload);
        let published = match remote.check_open() {
            Ok(()) => sender.send(envelope, closing).await,
            Err(closed) => Err(closed),
        };
        telemetry::published(&published);
        published
    }
}

#[async_trait]
impl Subscriber for PostgresBroker {
    async fn subscribe(
        &self,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        self.owner.remote.subscribe(topics, options).await
    }
}

#[async_trait]
impl Broker for PostgresBroker {
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
