//! Everything that is said to the client library when it comes to connections, in one place.

use std::convert::Infallible;
use std::sync::Arc;

use tidings_reconnect::Slot;
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{Cmd, RedisError, cmd};
use tidings_redis::{Config, Connection, Error as ServerError};

use crate::interest::Interest;
use crate::redis::RedisConfig;
use crate::redis::arrivals::Arrivals;
use crate::redis::channels::Channels;
use crate::remote::Remote;
use crate::remote::session::{Failure, Link, Session};
use crate::{Error, Topic};

/// The way to the server: one connection, which publishes, and listens as soon as there is a topic.
#[derive(Debug, Clone)]
pub(super) struct RedisLink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    channels: Channels,
    remote: Arc<Remote>,
    slot: Slot<Line, ServerError>,
}

/// An open connection, and what arrives on it.
#[derive(Debug)]
struct Line {
    connection: Connection,
    arrivals: Arc<Arrivals>,
}

impl RedisLink {
    pub(super) fn new(config: RedisConfig, remote: Arc<Remote>) -> Self {
        Self {
            shared: Arc::new(Shared {
                config: config.server,
                channels: Channels::new(config.prefix),
                remote,
                slot: Slot::new(),
            }),
        }
    }

    pub(super) async fn publish(&self, topic: &Topic, payload: &[u8]) -> Result<(), Error> {
        let channel = self.shared.channels.channel(topic);
        let mut publish = Cmd::with_capacity(3, channel.len() + payload.len() + 64);
        publish.arg("PUBLISH").arg(channel).arg(payload);
        let line = self.shared.line().await?;
        let sent = publish.exec_async(&mut line.connection.multiplexed()).await;
        sent.map_err(|error| {
            let error = ServerError::from(error);
            if error.may_have_been_done() {
                self.shared.slot.discard(&line);
            }
            error.into()
        })
    }

    /// Closes the connection.
    pub(super) fn hang_up(&self) {
        self.shared.slot.clear();
    }
}

impl Shared {
    async fn line(&self) -> Result<Arc<Line>, ServerError> {
        self.slot.connection(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Line, ServerError> {
        let arrivals = Arrivals::new(self.channels.clone(), Arc::clone(&self.remote));
        let arrivals = Arc::new(arrivals);
        let taking = Arc::clone(&arrivals);
        let connection = self.config.connect(move |push| taking.take(push)).await?;
        Ok(Line {
            connection,
            arrivals,
        })
    }
}

impl tidings_reconnect::Connection for Line {
    fn is_broken(&self) -> bool {
        self.connection.is_broken()
    }
}

impl Link for RedisLink {
    type Session = Listening;

    async fn connect(&self, number: u64) -> Result<Listening, Error> {
        let line = self.shared.line().await.map_err(Error::backend)?;
        line.arrivals.begin(number);
        Ok(Listening {
            shared: Arc::clone(&self.shared),
            line,
        })
    }
}

/// That the connection listens. Messages are delivered by the library's task; here one only learns
/// that it has ended.
pub(super) struct Listening {
    shared: Arc<Shared>,
    line: Arc<Line>,
}

impl Listening {
    fn multiplexed(&self) -> MultiplexedConnection {
        self.line.connection.multiplexed()
    }

    /// The names of topics, and those of patterns.
    fn names(&self, all: &[Interest]) -> (Vec<String>, Vec<String>) {
        let (mut topics, mut patterns) = (Vec::new(), Vec::new());
        for interest in all {
            match interest {
                Interest::Topic(topic) => topics.push(self.shared.channels.channel(topic)),
                Interest::Pattern(pattern) => patterns.push(self.shared.channels.glob(pattern)),
            }
        }
        (topics, patterns)
    }
}

impl Session for Listening {
    type Arrival = Infallible;

    async fn next(&mut self) -> Result<Infallible, Error> {
        self.line.connection.broken().await;
        Err(Error::backend("the connection was closed"))
    }

    async fn deliver(&mut self, arrival: Infallible) {
        match arrival {}
    }

    async fn listen(&mut self, all: &[Interest]) -> Result<(), Failure> {
        let (topics, patterns) = self.names(all);
        let mut multiplexed = self.multiplexed();
        if !topics.is_empty() {
            multiplexed.subscribe(topics).await.map_err(failure)?;
        }
        if !patterns.is_empty() {
            multiplexed.psubscribe(patterns).await.map_err(failure)?;
        }
        Ok(())
    }

    async fn unlisten(&mut self, all: &[Interest]) -> Result<(), Failure> {
        let (topics, patterns) = self.names(all);
        let mut multiplexed = self.multiplexed();
        // Without a name they would mean all that there are.
        if !topics.is_empty() {
            multiplexed.unsubscribe(topics).await.map_err(failure)?;
        }
        if !patterns.is_empty() {
            multiplexed.punsubscribe(patterns).await.map_err(failure)?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        let pinged = cmd("PING").exec_async(&mut self.multiplexed()).await;
        pinged.map_err(failure)
    }
}

impl Drop for Listening {
    /// The next session must not find what this one has asked for.
    fn drop(&mut self) {
        self.shared.slot.discard(&self.line);
    }
}

fn failure(error: RedisError) -> Failure {
    match ServerError::from(error) {
        refused @ ServerError::Refused(_) => Failure::Refused(Error::backend(refused)),
        other => Failure::Broken(Error::backend(other)),
    }
}
