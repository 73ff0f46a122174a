use std::sync::Arc;

use bytes::Bytes;
use tidings_postgres::tokio_postgres::Notification;
use tidings_postgres::{Database, Error as DatabaseError};

use crate::Error;
use crate::broker::interest::Interest;
use crate::broker::postgres::body;
use crate::broker::postgres::channels::channel;
use crate::broker::postgres::envelope::{Arrived, read};
use crate::broker::remote::Remote;
use crate::broker::remote::session::{Failure, Link, Session};

/// How to connect in order to listen.
#[derive(Debug)]
pub(super) struct PostgresLink {
    database: Database,
    remote: Arc<Remote>,
}

impl PostgresLink {
    pub(super) fn new(database: Database, remote: Arc<Remote>) -> Self {
        Self { database, remote }
    }
}

impl Link for PostgresLink {
    type Session = Listening;

    async fn connect(&self, number: u64) -> Result<Listening, Error> {
        let connection = self.database.config().listen().await;
        Ok(Listening {
            connection: connection.map_err(Error::backend)?,
            mail: Mail {
                remote: Arc::clone(&self.remote),
                number,
                database: self.database.clone(),
            },
        })
    }
}

/// The connection that listens.
pub(super) struct Listening {
    connection: tidings_postgres::Listening,
    mail: Mail,
}

/// Where notifications go.
struct Mail {
    remote: Arc<Remote>,
    number: u64,
    database: Database,
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
        // An empty statement: the server has nothing to do but to answer.
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

impl Mail {
    async fn deliver(&self, notification: &Notification) {
        match read(notification.payload()) {
            Some(Arrived::Inline { topic, payload }) => {
                self.deliver_to_all(&topic, payload);
            }
            Some(Arrived::Stored { topic, row }) => self.fetch(&topic, row).await,
            None => {
                let channel = notification.channel();
                tracing::debug!(channel, "a notification is no message");
            }
        }
    }

    fn deliver_to_all(&self, topic: &str, payload: Bytes) {
        // A channel is a topic's own: a message says that its topic is live.
        self.remote.deliver(self.number, topic, payload, |_| true);
    }

    /// Later messages wait for the body, so that they arrive in their order.
    async fn fetch(&self, topic: &str, row: i64) {
        if !self.remote.has(topic) {
            return;
        }
        let error = match body::fetch(&self.database, row).await {
            Ok(Some(body)) => return self.deliver_to_all(topic, body),
            Ok(None) => Error::backend("it has been deleted"),
            Err(error) => Error::backend(error),
        };
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, topic, "a large message could not be fetched");
        self.remote.lose(self.number, topic);
    }
}
