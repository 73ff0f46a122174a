//! Everything that is said to the client library when it comes to connections, in one place.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use tidings_redis::redis::{PushInfo, PushKind, RedisError, Value, cmd};
use tidings_redis::{Connection, Error as ServerError};

use crate::redis::RedisConfig;
use crate::remote::Remote;
use crate::remote::session::{Failure, Link, Session};
use crate::{Error, Topic};

/// How to connect.
#[derive(Debug, Clone)]
pub(super) struct RedisLink {
    config: RedisConfig,
}

impl RedisLink {
    pub(super) fn new(config: RedisConfig) -> Self {
        Self { config }
    }

    pub(super) fn channel(&self, topic: &Topic) -> String {
        format!("{}:{topic}", self.config.prefix)
    }

    /// The name that comes after the prefix.
    fn topic<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let channel = str::from_utf8(channel).ok()?;
        channel
            .strip_prefix(&*self.config.prefix)?
            .strip_prefix(':')
    }
}

impl Link for RedisLink {
    type Session = Listening;

    async fn connect(&self, remote: &Arc<Remote>, number: u64) -> Result<Listening, Error> {
        let (link, remote) = (self.clone(), Arc::clone(remote));
        let push = move |info: PushInfo| {
            if info.kind == PushKind::Message
                && let Some((channel, payload)) = message(info.data)
                && let Some(topic) = link.topic(&channel)
            {
                remote.deliver(number, topic, payload);
            }
        };
        let connection = self.config.server.connect(push).await;
        Ok(Listening {
            connection: connection.map_err(Error::backend)?,
            link: self.clone(),
        })
    }
}

fn message(data: Vec<Value>) -> Option<(Vec<u8>, Bytes)> {
    match <[Value; 2]>::try_from(data) {
        Ok([Value::BulkString(channel), Value::BulkString(payload)]) => {
            Some((channel, payload.into()))
        }
        _ => None,
    }
}

/// The connection that listens. Messages are delivered by the library's task; here one only learns
/// that it has ended.
pub(super) struct Listening {
    connection: Connection,
    link: RedisLink,
}

impl Listening {
    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        topics
            .iter()
            .map(|topic| self.link.channel(topic))
            .collect()
    }
}

impl Session for Listening {
    type Arrival = Infallible;

    async fn next(&mut self) -> Result<Infallible, Error> {
        self.connection.broken().await;
        Err(Error::backend("the connection was closed"))
    }

    async fn deliver(&mut self, arrival: Infallible) {
        match arrival {}
    }

    async fn listen(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        let channels = self.channels(topics);
        let done = self.connection.multiplexed().subscribe(channels).await;
        done.map_err(failure)
    }

    async fn unlisten(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        let channels = self.channels(topics);
        let done = self.connection.multiplexed().unsubscribe(channels).await;
        done.map_err(failure)
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        let done = cmd("PING")
            .exec_async(&mut self.connection.multiplexed())
            .await;
        done.map_err(failure)
    }
}

fn failure(error: RedisError) -> Failure {
    match ServerError::from(error) {
        refused @ ServerError::Refused(_) => Failure::Refused(Error::backend(refused)),
        other => Failure::Broken(Error::backend(other)),
    }
}
