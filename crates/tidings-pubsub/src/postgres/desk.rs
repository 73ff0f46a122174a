use std::fmt;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::error::{DbError, Severity};
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::postgres::PostgresConfig;
use crate::remote::session::in_time;
use crate::remote::slot::{Connection, Slot};

/// The connection for everything but listening: it publishes, and keeps and fetches large messages.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) config: PostgresConfig,
    slot: Slot<Line>,
}

/// An open connection, with the task that reads from it and writes to it.
pub(super) struct Line {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no, and undid it.
    Refused(tokio_postgres::Error),
    /// There is no connection: nothing was sent.
    Unsent(Error),
    /// There was no answer: it may have been done or not.
    Unanswered(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => Self::backend(error),
            Failure::Unsent(error) | Failure::Unanswered(error) => error,
        }
    }
}

impl Desk {
    pub(super) fn new(config: PostgresConfig) -> Self {
        Self {
            config,
            slot: Slot::new(),
        }
    }

    /// The connection, which is made if need be.
    pub(super) async fn line(&self) -> Result<Arc<Line>, Failure> {
        let connect = || in_time(self.config.answer_limit, self.connect());
        let line = self.slot.connection(connect).await;
        line.map_err(Failure::Unsent)
    }

    /// Waits for what became of a statement on this connection.
    pub(super) async fn answer<T>(
        &self,
        line: &Arc<Line>,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, Failure> {
        let unanswered = match tokio::time::timeout(self.config.answer_limit, statement).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) if is_refusal(&error) => return Err(Failure::Refused(error)),
            Ok(Err(error)) => Error::unanswered(error),
            Err(elapsed) => Error::unanswered(elapsed),
        };
        self.slot.discard(line);
        Err(Failure::Unanswered(unanswered))
    }

    /// Closes the connection.
    pub(super) fn hang_up(&self) {
        self.slot.clear();
    }

    async fn connect(&self) -> Result<Line, Error> {
        let (config, tls) = self.config.to_publish();
        let (client, connection) = config.connect(tls).await.map_err(Error::backend)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "the connection that publishes broke");
            }
        });
        Ok(Line {
            client,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

impl Connection for Line {
    fn is_broken(&self) -> bool {
        self.client.is_closed()
    }
}

impl Line {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

/// Whether the server undid a statement and goes on; after anything worse the connection is lost,
/// and with it the word on what became of the statement.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    severity == Some(Severity::Error)
}
