use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Socket};

use crate::postgres::desk::{Desk, is_refusal};
use crate::postgres::envelope::{Arrived, channel, read};
use crate::postgres::tls::Stream;
use crate::postgres::{PostgresConfig, body};
use crate::remote::Remote;
use crate::remote::session::{Failure, Link, Session};
use crate::{Error, Topic};

/// How to connect in order to listen.
#[derive(Debug)]
pub(super) struct PostgresLink {
    config: PostgresConfig,
    desk: Arc<Desk>,
}

impl PostgresLink {
    pub(super) fn new(config: PostgresConfig, desk: Arc<Desk>) -> Self {
        Self { config, desk }
    }
}

impl Link for PostgresLink {
    type Session = Listening;

    async fn connect(&self, remote: &Arc<Remote>, number: u64) -> Result<Listening, Error> {
        let (config, tls) = self.config.to_listen();
        let (client, connection) = config.connect(tls).await.map_err(Error::backend)?;
        Ok(Listening {
            client,
            connection,
            mail: Mail {
                remote: Arc::clone(remote),
                number,
                desk: Arc::clone(&self.desk),
            },
        })
    }
}

/// The connection that listens. There is no task for it: whoever has it reads, so that what cannot
/// be delivered yet stays in the socket.
pub(super) struct Listening {
    client: Client,
    connection: Connection<Socket, Stream<Socket>>,
    mail: Mail,
}

/// Where notifications go.
struct Mail {
    remote: Arc<Remote>,
    number: u64,
    desk: Arc<Desk>,
}

impl Listening {
    /// Runs statements, and delivers what arrives until they are done.
    async fn run(&mut self, statements: &str) -> Result<(), Failure> {
        let mut done = pin!(self.client.batch_execute(statements));
        loop {
            tokio::select! {
                biased;
                done = &mut done => return done.map_err(failure),
                notification = next(&mut self.connection) => {
                    let notification = notification.map_err(Failure::Broken)?;
                    self.mail.deliver(&notification).await;
                }
            }
        }
    }
}

impl Session for Listening {
    type Arrival = Notification;

    async fn next(&mut self) -> Result<Notification, Error> {
        next(&mut self.connection).await
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

/// The next notification.
async fn next(connection: &mut Connection<Socket, Stream<Socket>>) -> Result<Notification, Error> {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => return Ok(notification),
            Some(Ok(_notice)) => {}
            Some(Err(error)) => return Err(Error::backend(error)),
            None => return Err(Error::backend("the connection was closed")),
        }
    }
}

fn failure(error: tokio_postgres::Error) -> Failure {
    if is_refusal(&error) {
        Failure::Refused(Error::backend(error))
    } else {
        Failure::Broken(Error::backend(error))
    }
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
        let error = match body::fetch(&self.desk, row).await {
            Ok(Some(body)) => return self.remote.deliver(self.number, topic, body),
            Ok(None) => Error::backend("it has been deleted"),
            Err(failure) => failure.into(),
        };
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, topic, "a large message could not be fetched");
        self.remote.lose(self.number, topic);
    }
}
