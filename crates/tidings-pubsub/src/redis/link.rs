//! Everything that is said to the client library when it comes to connections, in one place.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Value, cmd};
use tokio_util::sync::CancellationToken;

use crate::redis::RedisConfig;
use crate::remote::Remote;
use crate::remote::session::{Failure, Link, Session};
use crate::remote::slot::Connection;
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

    pub(super) async fn connect_to_publish(&self) -> Result<Publishing, Error> {
        let broken = CancellationToken::new();
        let watched = broken.clone();
        let multiplexed = self
            .connect_with(move |push| {
                if push.kind == PushKind::Disconnection {
                    watched.cancel();
                }
            })
            .await?;
        Ok(Publishing {
            multiplexed,
            broken,
        })
    }

    /// Connects, and calls a function with what the server sends unasked. The function is called by
    /// the task that reads and must not wait.
    async fn connect_with(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.answer_limit))
            // The default of half a second is less than a busy server takes.
            .set_response_timeout(Some(self.config.answer_limit))
            .set_push_sender(move |info| {
                push(info);
                Ok::<(), Infallible>(())
            });
        self.config
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(Error::backend)
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
        let broken = CancellationToken::new();
        let push = {
            let (link, remote, broken) = (self.clone(), Arc::clone(remote), broken.clone());
            move |info: PushInfo| match info.kind {
                PushKind::Message => {
                    if let Some((channel, payload)) = message(info.data)
                        && let Some(topic) = link.topic(&channel)
                    {
                        remote.deliver(number, topic, payload);
                    }
                }
                PushKind::Disconnection => broken.cancel(),
                _ => {}
            }
        };
        Ok(Listening {
            connection: self.connect_with(push).await?,
            link: self.clone(),
            broken,
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

/// The connection that publishes.
pub(super) struct Publishing {
    multiplexed: MultiplexedConnection,
    broken: CancellationToken,
}

impl Publishing {
    pub(super) fn multiplexed(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }
}

impl Connection for Publishing {
    fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

/// The connection that listens. Messages are delivered by the library's task; here one only learns
/// that it has ended.
pub(super) struct Listening {
    connection: MultiplexedConnection,
    link: RedisLink,
    broken: CancellationToken,
}

impl Listening {
    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        topics
            .iter()
            .map(|topic| self.link.channel(topic))
            .collect()
    }

    async fn command(&mut self, command: &Cmd) -> Result<(), Failure> {
        let done = command.exec_async(&mut self.connection).await;
        done.map_err(failure)
    }
}

impl Session for Listening {
    type Arrival = Infallible;

    async fn next(&mut self) -> Result<Infallible, Error> {
        self.broken.cancelled().await;
        Err(Error::backend("the connection was closed"))
    }

    async fn deliver(&mut self, arrival: Infallible) {
        match arrival {}
    }

    async fn listen(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        let channels = self.channels(topics);
        let done = self.connection.subscribe(channels).await;
        done.map_err(failure)
    }

    async fn unlisten(&mut self, topics: &[Topic]) -> Result<(), Failure> {
        let channels = self.channels(topics);
        let done = self.connection.unsubscribe(channels).await;
        done.map_err(failure)
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        self.command(&cmd("PING")).await
    }
}

fn failure(error: RedisError) -> Failure {
    if error.is_unrecoverable_error() || error.is_timeout() {
        Failure::Broken(Error::backend(error))
    } else {
        Failure::Refused(Error::backend(error))
    }
}
