use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use tidings_postgres::tokio_postgres::Notification;
use tidings_postgres::{Config, Database, Error as DatabaseError};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::broker::interest::Interest;
use crate::broker::postgres::body;
use crate::broker::postgres::channels::channel;
use crate::broker::postgres::envelope::{Arrived, read};
use crate::broker::remote::Remote;
use crate::broker::remote::session::{Failure, Link, Session};
use crate::panics::catch;

/// Notifications that wait behind a large message. When there are more, the connection is not read.
const QUEUE: usize = 1024;

/// Large messages that are fetched at the same time.
const FETCHES: usize = 16;

/// How to connect in order to listen.
#[derive(Debug)]
pub(super) struct PostgresLink {
    config: Config,
    remote: Arc<Remote>,
    /// On a connection of its own: a large message delays neither those that are published nor the check
    /// whether the server is there.
    bodies: Database,
    fetched: Arc<Notify>,
}

impl PostgresLink {
    /// `fetched` is notified of each large message that was fetched.
    pub(super) fn new(config: Config, remote: Arc<Remote>, fetched: Arc<Notify>) -> Self {
        Self {
            bodies: Database::new(config.clone()),
            config,
            remote,
            fetched,
        }
    }
}

impl Link for PostgresLink {
    type Session = Listening;

    async fn connect(&self, number: u64) -> Result<Listening, Error> {
        let connection = self.config.listen().await;
        Ok(Listening {
            connection: connection.map_err(Error::backend)?,
            mail: Mail::start(Deliverer {
                remote: Arc::clone(&self.remote),
                number,
                bodies: self.bodies.clone(),
                fetched: Arc::clone(&self.fetched),
            }),
        })
    }
}

/// The connection that listens.
pub(super) struct Listening {
    connection: tidings_postgres::Listening,
    mail: Mail,
}

impl Listening {
    /// Runs statements, and delivers what arrives until they are done.
    async fn run(&mut self, statements: &str) -> Result<(), Failure> {
        let mail = &self.mail;
        let arrived = |notification| async move { mail.deliver(&notification).await };
        let done = self.connection.run(statements, arrived).await;
        done.map_err(|error| match error {
            DatabaseError::Refused(_) => Failure::Refused(Error::backend(error)),
            _ => Failure::Broken(Error::backend(error)),
        })
    }
}

impl Session for Listening {
    type Arrival = Notification;

    async fn next(&mut self) -> Result<Notification, Error> {
        self.connection.next().await.map_err(Error::backend)
    }

    async fn deliver(&mut self, notification: Notification) {
        self.mail.deliver(&notification).await;
    }

    async fn listen(&mut self, all: &[Interest]) -> Result<(), Failure> {
        self.run(&for_each("LISTEN", all)?).await
    }

    async fn unlisten(&mut self, all: &[Interest]) -> Result<(), Failure> {
        self.run(&for_each("UNLISTEN", all)?).await
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        // An empty statement: the server only replies.
        self.run("").await
    }
}

/// One statement for each topic; sent together, they are one transaction. These two commands take
/// no parameters, but a channel is made of letters, digits and `_` alone.
fn for_each(command: &str, all: &[Interest]) -> Result<String, Failure> {
    let statements = all.iter().map(|interest| match interest {
        Interest::Topic(topic) => Ok(format!("{command} \"{}\";", channel(topic))),
        Interest::Pattern(_) => Err(Failure::Refused(Error::NoPatterns)),
    });
    statements.collect()
}

/// Where notifications go. Small messages are delivered at once; behind a large one, everything waits in a
/// queue, so that messages arrive in their order.
struct Mail {
    deliverer: Arc<Deliverer>,
    queue: mpsc::Sender<Arrived>,
    /// How many are in the queue or on their way out of it.
    queued: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Mail {
    fn start(deliverer: Deliverer) -> Self {
        let deliverer = Arc::new(deliverer);
        let (queue, arrivals) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let delivering = deliver_in_order(arrivals, Arc::clone(&deliverer), Arc::clone(&queued));
        Self {
            deliverer,
            queue,
            queued,
            _task: AbortOnDropHandle::new(tokio::spawn(delivering)),
        }
    }

    async fn deliver(&self, notification: &Notification) {
        match read(notification.payload()) {
            Some(Arrived::Inline { topic, payload })
                if self.queued.load(Ordering::Acquire) == 0 =>
            {
                self.deliverer.deliver(&topic, payload);
            }
            Some(Arrived::Stored { topic, .. }) if !self.deliverer.remote.has(&topic) => {}
            Some(arrived) => {
                self.queued.fetch_add(1, Ordering::Relaxed);
                // The task that receives ends with this.
                let _sent = self.queue.send(arrived).await;
            }
            None => {
                let channel = notification.channel();
                catch(|| {
                    tracing::debug!(channel, "received a notification that is not a message");
                });
            }
        }
    }
}

/// Fetches large messages, some at a time, and delivers everything in its order.
async fn deliver_in_order(
    arrivals: mpsc::Receiver<Arrived>,
    deliverer: Arc<Deliverer>,
    queued: Arc<AtomicUsize>,
) {
    let arrivals = stream::unfold(arrivals, |mut arrivals| async move {
        let arrived = arrivals.recv().await?;
        Some((arrived, arrivals))
    });
    let fetched = arrivals.map(|arrived| deliverer.fetch(arrived));
    let mut fetched = pin!(fetched.buffered(FETCHES));
    while let Some((topic, payload)) = fetched.next().await {
        match payload {
            Some(payload) => deliverer.deliver(&topic, payload),
            None => deliverer.remote.lose(deliverer.number, &topic),
        }
        queued.fetch_sub(1, Ordering::Release);
    }
}

/// Delivers to the subscriptions of one session.
struct Deliverer {
    remote: Arc<Remote>,
    number: u64,
    bodies: Database,
    fetched: Arc<Notify>,
}

impl Deliverer {
    fn deliver(&self, topic: &str, payload: Bytes) {
        // Each topic has a channel of its own: a message shows that its topic is live.
        self.remote.deliver(self.number, topic, payload, |_| true);
    }

    /// The topic of a message, and its payload unless that cannot be fetched.
    async fn fetch(&self, arrived: Arrived) -> (String, Option<Bytes>) {
        let (topic, row) = match arrived {
            Arrived::Inline { topic, payload } => return (topic, Some(payload)),
            Arrived::Stored { topic, row } => (topic, row),
        };
        self.fetched.notify_one();
        let fetched = AssertUnwindSafe(body::fetch(&self.bodies, row)).catch_unwind();
        let error = match fetched.await {
            Ok(Ok(Some(body))) => return (topic, Some(body)),
            Ok(Ok(None)) => Error::backend("it has been deleted"),
            Ok(Err(error)) => Error::backend(error),
            Err(_panic) => Error::backend("a part of the program panicked"),
        };
        let error: &dyn std::error::Error = &error;
        catch(|| {
            tracing::warn!(
                error,
                topic,
                "cannot fetch a large message, reporting it to its subscriptions as missed"
            );
        });
        (topic, None)
    }
}
