use std::fmt;
use std::ops::Deref;

use tidings_reconnect::Breakable as _;
use tokio_postgres::Row;
use tokio_util::task::AbortOnDropHandle;

use crate::cancel::Canceller;
use crate::config::RawConnection;
use crate::{Error, Parameter};

/// An open connection, with the task that reads from it and writes to it. Dropping it closes the
/// connection.
///
/// It is the [`tokio_postgres::Client`]: statements that are sent before the replies to others have
/// arrived are pipelined.
pub struct Client {
    statements: tokio_postgres::Client,
    canceller: Canceller,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) fn drive(
    statements: tokio_postgres::Client,
    connection: RawConnection,
    canceller: Canceller,
) -> Client {
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "a connection to PostgreSQL broke");
        }
    });
    Client {
        statements,
        canceller,
        _driver: AbortOnDropHandle::new(driver),
    }
}

impl Client {
    /// Asks the server, on a connection of its own, to cancel the statement that it runs for this one.
    /// Whether it did shows in the outcome of the statement.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when the server cannot be reached. How long that may take is for the caller to
    /// limit.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have cancelled the statement.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.canceller.cancel(&self.statements.cancel_token()).await
    }

    /// Runs a statement in a transaction of its own whose isolation level is `READ COMMITTED`, whatever
    /// the default of the session is. All of it is sent at once, so that a dropped future leaves no
    /// transaction open.
    ///
    /// # Errors
    ///
    /// As for [`tokio_postgres::Client::query_typed`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run the statement or not.
    pub async fn query_in_transaction(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let (begun, rows, ended) = tokio::join!(
            self.statements.batch_execute(BEGIN),
            self.statements.query_typed(statement, parameters),
            self.statements.batch_execute("COMMIT"),
        );
        begun?;
        let rows = rows?;
        ended?;
        Ok(rows)
    }
}

impl tidings_reconnect::Breakable for Client {
    fn is_broken(&self) -> bool {
        self.statements.is_closed()
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.statements
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
