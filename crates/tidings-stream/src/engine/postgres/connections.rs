//! A fixed number of connections, each used by one call at a time: one that waits for a lock or for
//! the disk holds up no other.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};
use tidings_postgres::tokio_postgres::{self, Row, Statement};
use tidings_postgres::{Client, Database};
use tokio::sync::Semaphore;

use super::failure;
use crate::Error;

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The transaction around a statement in sessions whose default is another isolation level. It sets
/// nothing that outlives it: a pooler may give the session to others.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The connections of one purpose.
#[derive(Debug)]
pub(super) struct Connections {
    /// Those that are not in use; the last one was used last, so that few are enough for few calls.
    free: Mutex<Vec<Slot>>,
    permits: Semaphore,
    count: u32,
    patience: Duration,
    sessions: Sessions,
}

/// What sessions are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sessions {
    /// Whether statements are prepared on them.
    pub(super) prepare: bool,
    /// Whether their default isolation level is what the functions need.
    pub(super) read_committed: bool,
}

/// A connection, which is made when it is first used, and what has been prepared on it.
#[derive(Debug)]
struct Slot {
    database: Database,
    client: Weak<Client>,
    statements: HashMap<&'static str, Statement>,
}

/// A connection that is in use; dropping it gives it back.
struct InUse<'a> {
    connections: &'a Connections,
    slot: Option<Slot>,
}

impl Connections {
    /// Up to `count` connections, the first one made with `database`.
    pub(super) fn new(database: Database, count: usize, sessions: Sessions) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let config = database.config().clone();
        let patience = config.reply_limit();
        let mut free: Vec<_> = (1..count)
            .map(|_| Slot::new(Database::new(config.clone())))
            .collect();
        free.push(Slot::new(database));
        Self {
            free: Mutex::new(free),
            permits: Semaphore::new(count as usize),
            count,
            patience,
            sessions,
        }
    }

    /// Runs a statement on a connection of its own.
    pub(super) async fn query(
        &self,
        statement: &'static str,
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
        let mut in_use = InUse {
            connections: self,
            slot: self.lock().pop(),
        };
        let Some(slot) = &mut in_use.slot else {
            // There are as many connections as permits.
            return Err(Failure::Closed);
        };
        let replied = slot.query(statement, parameters, self.sessions).await;
        if let Err(error) = &replied
            && error.may_have_been_done()
        {
            // What broke one has mostly broken all. Those that are not in use are made again, rather
            // than tried until each has run into its limit.
            self.disconnect();
        }
        drop(in_use);
        drop(permit);
        replied.map_err(Failure::Database)
    }

    /// Runs a statement that returns one row.
    pub(super) async fn row(
        &self,
        statement: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, Error> {
        self.opt_row(statement, parameters)
            .await?
            .ok_or_else(failure::unexpected)
    }

    /// Runs a statement that returns one row, or none.
    pub(super) async fn opt_row(
        &self,
        statement: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, Error> {
        Ok(self.query(statement, parameters).await?.pop())
    }

    /// The channel of wake-ups.
    pub(super) async fn channel(&self) -> Result<String, Error> {
        let row = self.row("SELECT tidings_stream_channel()", &[]).await?;
        row.try_get(0).map_err(failure::column)
    }

    /// Refuses further calls, and closes the connections once those in use are given back.
    pub(super) async fn close(&self) {
        // An error means that it was closed before.
        if let Ok(all) = self.permits.acquire_many(self.count).await {
            self.permits.close();
            all.forget();
        }
        self.disconnect();
    }

    /// Closes the connections that are not in use.
    fn disconnect(&self) {
        for slot in &*self.lock() {
            slot.database.disconnect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // The list is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.connections.lock().extend(self.slot.take());
    }
}

impl Slot {
    fn new(database: Database) -> Self {
        Self {
            database,
            client: Weak::new(),
            statements: HashMap::new(),
        }
    }

    async fn query(
        &mut self,
        statement: &'static str,
        parameters: &[Parameter<'_>],
        sessions: Sessions,
    ) -> Result<Vec<Row>, tidings_postgres::Error> {
        let database = self.database.clone();
        if !sessions.read_committed {
            return database
                .run(|client| async move { query_in_transaction(&client, statement, parameters).await })
                .await;
        }
        if sessions.prepare {
            let running = database.run(|client| self.query_prepared(client, statement, parameters));
            match running.await {
                // Nothing was done; what was prepared is gone, or returns something else by now.
                Err(error) if is_outdated(&error) => self.statements.clear(),
                replied => return replied,
            }
        }
        database
            .run(|client| async move { client.query_typed(statement, parameters).await })
            .await
    }

    async fn query_prepared(
        &mut self,
        client: Arc<Client>,
        statement: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !std::ptr::eq(self.client.as_ptr(), Arc::as_ptr(&client)) {
            self.statements.clear();
            self.client = Arc::downgrade(&client);
        }
        let prepared = match self.statements.entry(statement) {
            Entry::Occupied(prepared) => prepared.into_mut(),
            Entry::Vacant(unknown) => {
                let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
                unknown.insert(client.prepare_typed(statement, &types).await?)
            }
        };
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        client.query(prepared, &values).await
    }
}

/// Runs a statement in a transaction of its own. All of it is sent at once, so that a dropped future
/// leaves no transaction open.
async fn query_in_transaction(
    client: &Client,
    statement: &'static str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (begun, rows, ended) = tokio::join!(
        client.batch_execute(BEGIN),
        client.query_typed(statement, parameters),
        client.batch_execute("COMMIT"),
    );
    begun?;
    let rows = rows?;
    ended?;
    Ok(rows)
}

/// The isolation level of sessions as they are.
pub(super) async fn is_read_committed(database: &Database) -> Result<bool, Error> {
    const ASK: &str = "SELECT current_setting('transaction_isolation') = 'read committed'";
    let asked = database.run(|client| async move { client.query_typed(ASK, &[]).await });
    let rows = asked.await.map_err(failure::error)?;
    let row = rows.first().ok_or_else(failure::unexpected)?;
    row.try_get(0).map_err(failure::column)
}

/// Whether a prepared statement was refused for what has become of it since.
fn is_outdated(error: &tidings_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::DUPLICATE_PSTATEMENT,
        ]
        .contains(code)
    })
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
