use std::sync::Arc;

use tidings_postgres::tokio_postgres::Notification;
use tidings_postgres::{Database, Error as DatabaseError};

use crate::postgres::body;
use crate::postgres::envelope::{Arrived, channel, read};
use crate::remote::Remote;
use crate::remote::session::{Failure, Link, Session};
use crate::{Error, Topic};

/// How to connect in order to listen.
#[derive(Debug)]
pub(super) struct PostgresLink {
    database: Database,
}

impl PostgresLink {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

impl Link for PostgresLink {
    type Session = Listening;

    async fn connect(&self, remote: &Arc<Remote>, number: u64) -> Result<Listening, Error> {
        let connection = self.database.config().listen().await;
        Ok(Listening {
            connection: connection.map_err(Error::backend)?,
            mail: Mail {
                remote: Arc::clone(remote),
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

    async fn listen(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        self.run(&for_each("LISTEN", topics)).await
    }

    async fn unlisten(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        self.run(&for_each("UNLISTEN", topics)).await
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        // An empty statement: the server has nothing to do but to answer.
        self.run("").await
    }
}

/// One statement for each topic; sent together, they are one transaction. These two commands take
/// no parameters, but a channel is made of letters, digits and `_` alone.
fn for_each(command: &str, topics: &[Topic]) -> String {
    let statements = topics.iter().map(|topic| {
        let channel = channel(topic);
        format!("{command} \"{channel}\";")
    });
    statements.collect()
}

impl Mail {
    async fn deliver(&self, notification: &Notification) {
        match read(notification.payload()) {
            Some(Arrived::Inline { topic, payload }) => {
                self.remote.deliver(self.number, &topic, payload);
            }
            Some(Arrived::Stored { topic, row }) => self.fetch(&topic, row).await,
            None => {
                let channel = notification.channel();
                tracing::debug!(channel, "a notification is no message");
            }
        }
    }

    /// Later messages wait for the body, so that they arrive in their order.
    async fn fetch(&self, topic: &str, row: i64) {
        if !self.remote.has(topic) {
            return;
        }
        let error = match body::fetch(&self.database, row).await {
            Ok(Some(body)) => return self.remote.deliver(self.number, topic, body),
            Ok(None) => Error::backend("it has been deleted"),
            Err(error) => Error::backend(error),
        };
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, topic, "a large message could not be fetched");
        self.remote.lose(self.number, topic);
    }
}
