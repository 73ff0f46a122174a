//! A fixed number of connections, each used by one call at a time: one that waits for a lock holds up
//! no other call.

use std::sync::{Arc, Mutex, PoisonError};

use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tidings_postgres::tokio_postgres::{self, Row};
use tidings_postgres::{Config, Database};
use tokio::sync::Semaphore;

use crate::StoreError;

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How often a statement is tried that was in another's way: the locks have an order, so this is for
/// what others do with the tables.
const TRIES: u32 = 5;

#[derive(Debug)]
pub(super) struct Connections {
    /// Those not in use; the last one was used last, so that few are enough for few calls.
    free: Mutex<Vec<Database>>,
    permits: Semaphore,
}

/// A connection that is in use; dropping it gives it back.
struct InUse<'a> {
    connections: &'a Connections,
    database: Option<Database>,
}

impl Connections {
    pub(super) fn new(config: &Config, count: usize) -> Self {
        let count = count.max(1);
        let free = (0..count).map(|_| Database::new(config.clone())).collect();
        Self {
            free: Mutex::new(free),
            permits: Semaphore::new(count),
        }
    }

    /// Runs a statement, which is a transaction of its own.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let in_use = InUse {
            connections: self,
            database: self.lock().pop(),
        };
        // There are as many connections as permits.
        let database = in_use.database.as_ref().ok_or(StoreError::Closed)?;
        let mut tries = 1;
        loop {
            let run = database
                .run(|client| async move { client.query_typed(statement, parameters).await });
            match run.await {
                Ok(rows) => return Ok(rows),
                Err(error) if tries < TRIES && is_in_the_way(&error) => tries += 1,
                Err(error) => return Err(failure(error)),
            }
        }
    }

    /// Runs a statement that returns one row.
    pub(super) async fn row(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, StoreError> {
        let row = self.query(statement, parameters).await?.pop();
        row.ok_or_else(|| StoreError::backend("the database returned no row"))
    }

    /// Refuses further calls.
    pub(super) fn close(&self) {
        self.permits.close();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Database>> {
        // The list is whole after every statement, so a poisoned lock is still right.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            self.connections.lock().push(database);
        }
    }
}

/// Whether two transactions waited for each other, and this one was chosen to end.
fn is_in_the_way(error: &tidings_postgres::Error) -> bool {
    let codes = [
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    error.code().is_some_and(|code| codes.contains(&code))
}

pub(super) fn failure(error: tidings_postgres::Error) -> StoreError {
    if error.code() == Some(&SqlState::DISK_FULL) {
        return StoreError::Full(Arc::new(error));
    }
    match error {
        tidings_postgres::Error::Unsent(_) | tidings_postgres::Error::NoReply(_) => {
            StoreError::Unavailable(Arc::new(error))
        }
        refused => StoreError::backend(refused),
    }
}

/// A column that is not what it should be.
pub(super) fn column(error: tokio_postgres::Error) -> StoreError {
    StoreError::backend(error)
}
