use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Notification};

use crate::Error;
use crate::config::RawConnection;

/// A connection that notifications arrive on. Dropping it closes the connection.
///
/// No task drives it: its owner reads, so that notifications which cannot be taken yet stay in the
/// socket and, when that is full, with the server.
pub struct Listening {
    client: tokio_postgres::Client,
    connection: RawConnection,
    reply_limit: Duration,
}

impl Listening {
    pub(crate) fn new(
        client: tokio_postgres::Client,
        connection: RawConnection,
        reply_limit: Duration,
    ) -> Self {
        Self {
            client,
            connection,
            reply_limit,
        }
    }

    /// The next notification.
    ///
    /// # Errors
    ///
    /// [`Error::NoReply`] when the connection broke, which is its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Notification, Error> {
        next(&mut self.connection).await
    }

    /// Runs statements in one transaction, such as `LISTEN "channel"`, and calls `arrived` with each
    /// notification that arrives before the reply. Without a statement it checks whether the server is
    /// still there.
    ///
    /// The server may be silent for the reply limit at most. The reply may take longer than that while
    /// notifications arrive: it stands behind those that were sent before. The time in `arrived` does not
    /// count.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server refused a statement, [`Error::NoReply`] when the connection
    /// broke or fell silent, which is its end.
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
                notification = timeout(self.reply_limit, next(&mut self.connection)) => {
                    let notification = notification.map_err(|_elapsed| Error::late())?;
                    arrived(notification?).await;
                }
            }
        }
    }
}

async fn next(connection: &mut RawConnection) -> Result<Notification, Error> {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => return Ok(notification),
            Some(Ok(_notice)) => {}
            Some(Err(error)) => return Err(Error::broken(error)),
            None => return Err(Error::closed_by_server()),
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}
