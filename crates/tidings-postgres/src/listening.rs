use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

use tokio_postgres::{AsyncMessage, Notification};

use crate::Error;
use crate::config::Connection;

/// A connection that notifications arrive on. Dropping it closes the connection.
///
/// There is no task for it: whoever has it reads, so that what cannot be taken yet stays in the
/// socket and, when that is full, with the server.
pub struct Listening {
    client: tokio_postgres::Client,
    connection: Connection,
}

impl Listening {
    pub(crate) fn new(client: tokio_postgres::Client, connection: Connection) -> Self {
        Self { client, connection }
    }

    /// The next notification.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`] when the connection broke, which is its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Notification, Error> {
        next(&mut self.connection).await
    }

    /// Runs statements in one transaction, such as `LISTEN "channel"`, and gives to `arrived` what
    /// arrives until they are done. Without any statement it asks whether the server is still there.
    ///
    /// How long that may take is for the caller to limit.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server said no, [`Error::Unanswered`] when the connection broke,
    /// which is its end.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run them, and may have lost the notification that `arrived` had just
    /// been given.
    pub async fn run<F>(
        &mut self,
        statements: &str,
        mut arrived: impl FnMut(Notification) -> F + Send,
    ) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send,
    {
        let mut done = pin!(self.client.batch_execute(statements));
        loop {
            tokio::select! {
                biased;
                done = &mut done => return done.map_err(Error::of_statement),
                notification = next(&mut self.connection) => arrived(notification?).await,
            }
        }
    }
}

async fn next(connection: &mut Connection) -> Result<Notification, Error> {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => return Ok(notification),
            Some(Ok(_notice)) => {}
            Some(Err(error)) => return Err(Error::unanswered(error)),
            None => return Err(Error::unanswered("the connection was closed")),
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}
