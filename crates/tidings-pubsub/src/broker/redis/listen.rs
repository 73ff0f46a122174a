use std::convert::Infallible;
use std::sync::Arc;

use tidings_redis::Error as ServerError;
use tidings_redis::redis::RedisError;
use tidings_redis::redis::aio::MultiplexedConnection;

use crate::Error;
use crate::broker::interest::Interest;
use crate::broker::redis::connection::{Line, SharedConnection};
use crate::broker::remote::session::{Failure, Link, Session};

impl Link for SharedConnection {
    type Session = Listening;

    async fn connect(&self, number: u64) -> Result<Listening, Error> {
        let line = self.line().await.map_err(Error::backend)?;
        line.arrivals.begin(number);
        Ok(Listening {
            shared: self.clone(),
            line,
        })
    }
}

/// A connection that listens. The library's task delivers the messages; this notices that the
/// connection has ended.
pub(super) struct Listening {
    shared: SharedConnection,
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
                Interest::Topic(topic) => topics.push(self.shared.channels().channel(topic)),
                Interest::Pattern(pattern) => patterns.push(self.shared.channels().glob(pattern)),
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
        let checked = self.line.check().await;
        checked.map_err(|error| Failure::Broken(Error::backend(error)))
    }
}

impl Drop for Listening {
    /// The next session must not find what this one has asked for.
    fn drop(&mut self) {
        self.shared.discard(&self.line);
    }
}

fn failure(error: RedisError) -> Failure {
    match ServerError::from(error) {
        refused @ ServerError::Refused(_) => Failure::Refused(Error::backend(refused)),
        other => Failure::Broken(Error::backend(other)),
    }
}
