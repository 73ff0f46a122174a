//! A fixed number of connections, each used by one call at a time: one that waits for a lock or for
//! the disk holds up nobody behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_postgres::Database;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tokio::sync::Semaphore;

use super::failure;
use crate::Error;

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connections of one purpose.
#[derive(Debug)]
pub(super) struct Connections {
    /// Those that nobody uses; the last one was used last, so that few are enough for few calls.
    free: Mutex<Vec<Database>>,
    permits: Semaphore,
    count: u32,
    patience: Duration,
}

/// A connection that is in use; dropping it gives it back.
struct InUse<'a> {
    connections: &'a Connections,
    database: Database,
}

impl Connections {
    /// Up to `count` connections, the first one made with `database`.
    pub(super) fn new(database: Database, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let config = database.config().clone();
        let patience = config.answer_limit();
        let mut free: Vec<_> = (1..count).map(|_| Database::new(config.clone())).collect();
        free.push(database);
        Self {
            free: Mutex::new(free),
            permits: Semaphore::new(count as usize),
            count,
            patience,
        }
    }

    /// Runs a statement on a connection of its own.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let waited = tokio::time::timeout(self.patience, self.permits.acquire()).await;
        let permit = match waited {
            Ok(Ok(permit)) => permit,
            Ok(Err(_closed)) => return Err(Failure::Closed),
            Err(elapsed) => {
                let unsent = tidings_postgres::Error::Unsent(Arc::new(elapsed));
                return Err(Failure::Database(unsent));
            }
        };
        let Some(database) = self.lock().pop() else {
            // There are as many connections as permits.
            return Err(Failure::Closed);
        };
        let in_use = InUse {
            connections: self,
            database,
        };
        let answered = in_use
            .database
            .run(|client| async move { client.query_typed(statement, parameters).await })
            .await;
        if let Err(error) = &answered
            && error.may_have_been_done()
        {
            // What broke one has mostly broken all; those that nobody uses are made anew, rather than
            // tried until each has run into its limit.
            self.disconnect();
        }
        drop(in_use);
        drop(permit);
        answered.map_err(Failure::Database)
    }

    /// Runs a statement that answers one row.
    pub(super) async fn row(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, Error> {
        self.opt_row(statement, parameters)
            .await?
            .ok_or_else(failure::unexpected)
    }

    /// Runs a statement that answers one row, or none.
    pub(super) async fn opt_row(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, Error> {
        Ok(self.query(statement, parameters).await?.pop())
    }

    /// The channel of wake-ups.
    pub(super) async fn channel(&self) -> Result<String, Error> {
        let row = self.row("SELECT tidings_stream_channel()", &[]).await?;
        row.try_get(0).map_err(failure::column)
    }

    /// Lets nobody in any more, and closes the connections once those who use them are done.
    pub(super) async fn close(&self) {
        // Whoever closed it before has taken all permits.
        if let Ok(all) = self.permits.acquire_many(self.count).await {
            self.permits.close();
            all.forget();
        }
        self.disconnect();
    }

    /// Closes the connections that nobody uses.
    fn disconnect(&self) {
        for database in &*self.lock() {
            database.disconnect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Database>> {
        // The list is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.connections.lock().push(self.database.clone());
    }
}

/// Why a statement did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The engine was closed.
    Closed,
    /// The database failed, or is too busy.
    Database(tidings_postgres::Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Closed,
            Failure::Database(error) => failure::error(error),
        }
    }
}
