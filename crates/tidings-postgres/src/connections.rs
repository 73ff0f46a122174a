//! A fixed number of connections, each used by one call at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};
use tokio_util::task::TaskTracker;

use crate::reason::Reason;
use crate::{Client, Database, Error, Parameter};

/// How often a statement is tried that the server ended because it was in another's way.
const TRIES: u32 = 5;

/// A fixed number of connections, each used by one call at a time: a call that waits for a lock or for
/// the disk delays no other.
///
/// A connection is made when it is first needed, and made again when it broke.
#[derive(Debug)]
pub struct Connections {
    /// Those that are not in use; the last one was used last, so that few are enough for few calls.
    free: Mutex<Vec<Slot>>,
    permits: Semaphore,
    running: TaskTracker,
    patience: Duration,
    sessions: Sessions,
}

/// How statements run in the sessions of a database.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Sessions {
    prepares: bool,
    is_read_committed: bool,
}

/// A connection, and what has been prepared on it.
#[derive(Debug)]
struct Slot {
    database: Database,
    client: Weak<Client>,
    statements: HashMap<Box<str>, Statement>,
}

/// A connection that is in use; dropping it gives it back.
struct InUse<'a> {
    connections: &'a Connections,
    slot: Option<Slot>,
    /// Whether the server has replied, or never will.
    has_ended: bool,
}

impl Sessions {
    /// Looks at the default isolation level of the sessions. Where it is not `READ COMMITTED`, each
    /// statement runs in a transaction that is, because a statement that has waited for a lock must see
    /// what was committed meanwhile. It sets nothing that outlives the transaction: a pooler may give
    /// the session to others.
    ///
    /// # Errors
    ///
    /// As for [`Database::run`].
    ///
    /// # Panics
    ///
    /// As for [`Database::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn of(database: &Database) -> Result<Self, Error> {
        const ASK: &str = "SELECT current_setting('transaction_isolation') = 'read committed'";
        let asked = database.run(|client| async move { client.query_typed(ASK, &[]).await });
        let rows = asked.await?;
        let row = rows.first().ok_or(Error::NoRow)?;
        Ok(Self {
            prepares: false,
            is_read_committed: row.try_get(0).map_err(Error::of_statement)?,
        })
    }

    /// Prepares each statement once on each connection, and keeps it there: for programs with a fixed
    /// number of statements, on servers and poolers that keep what is prepared.
    pub fn with_prepared_statements(mut self) -> Self {
        self.prepares = true;
        self
    }
}

impl Connections {
    /// Up to `count` connections, at least one. The first one is that of `database`.
    pub fn new(database: Database, count: usize, sessions: Sessions) -> Self {
        let count = count.max(1);
        let config = database.config().clone();
        let patience = config.reply_limit();
        let others = (1..count).map(|_| Database::new(config.clone()));
        let mut free: Vec<_> = others.map(Slot::new).collect();
        free.push(Slot::new(database));
        Self {
            free: Mutex::new(free),
            permits: Semaphore::new(count),
            running: TaskTracker::new(),
            patience,
            sessions,
        }
    }

    /// Runs a statement, which is a transaction of its own, and returns its rows. It waits for a free
    /// connection no longer than the [reply limit](crate::Config::reply_limit).
    ///
    /// A statement that the server has ended because of a deadlock, or because it could not be serialized,
    /// has done nothing, and is tried again a few times. Nothing else is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Unsent`] when no connection became free
    /// or none can be made, otherwise as for [`Database::run`].
    ///
    /// # Panics
    ///
    /// As for [`Database::run`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run the statement or not.
    pub async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        let _running = self.running.token();
        let _permit = match tokio::time::timeout(self.patience, self.permits.acquire()).await {
            Ok(permit) => permit.map_err(|_closed| Error::Closed)?,
            Err(_elapsed) => return Err(Error::Unsent(Reason::AllInUse.into())),
        };
        let mut in_use = InUse {
            connections: self,
            slot: self.lock().pop(),
            has_ended: false,
        };
        // There are as many connections as permits.
        let slot = in_use.slot.as_mut().ok_or(Error::Closed)?;
        let mut tries = 1;
        loop {
            match slot.query(statement, parameters, self.sessions).await {
                Err(error) if tries < TRIES && is_in_the_way(&error) => tries += 1,
                replied => {
                    in_use.has_ended = true;
                    if replied.as_ref().is_err_and(Error::may_have_been_done) {
                        // What broke one has mostly broken all. Those that are not in use are made
                        // again, rather than tried until each has run into its limit.
                        self.disconnect();
                    }
                    return replied;
                }
            }
        }
    }

    /// Runs a statement that returns one row.
    ///
    /// # Errors
    ///
    /// [`Error::NoRow`] when it returns none, otherwise as for [`query`](Self::query).
    ///
    /// # Panics
    ///
    /// As for [`query`](Self::query).
    ///
    /// # Cancel safety
    ///
    /// As for [`query`](Self::query).
    pub async fn row(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Row, Error> {
        let row = self.query(statement, parameters).await?.pop();
        row.ok_or(Error::NoRow)
    }

    /// Refuses further calls with [`Error::Closed`], and those that wait for a connection. Connections
    /// are closed when the calls that use them end.
    pub fn close(&self) {
        self.permits.close();
        self.running.close();
        self.disconnect();
    }

    /// Waits until the connections are [closed](Self::close) and the calls that use them have ended: no
    /// longer than connecting and a reply may take.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn closed(&self) {
        self.running.wait().await;
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
        let Some(slot) = self.slot.take() else {
            return;
        };
        let mut free = self.connections.lock();
        // Under the lock, so that it cannot be missed by a call that closes at the same time.
        if self.connections.permits.is_closed() {
            slot.database.disconnect();
        }
        if self.has_ended {
            free.push(slot);
        } else {
            // The server may run the statement of a call that was dropped: the others are taken before.
            free.insert(0, slot);
        }
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
        statement: &str,
        parameters: &[Parameter<'_>],
        sessions: Sessions,
    ) -> Result<Vec<Row>, Error> {
        let database = self.database.clone();
        if !sessions.is_read_committed {
            let run = database.run(|client| async move {
                client.query_in_transaction(statement, parameters).await
            });
            return run.await;
        }
        if sessions.prepares {
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
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !std::ptr::eq(self.client.as_ptr(), Arc::as_ptr(&client)) {
            self.statements.clear();
            self.client = Arc::downgrade(&client);
        }
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        if let Some(prepared) = self.statements.get(statement) {
            return client.query(prepared, &values).await;
        }
        let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        let prepared = client.prepare_typed(statement, &types).await?;
        let prepared = self.statements.entry(statement.into()).or_insert(prepared);
        client.query(&*prepared, &values).await
    }
}

/// Whether a prepared statement was refused for what has become of it since.
fn is_outdated(error: &Error) -> bool {
    is_one_of(
        error,
        &[
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::DUPLICATE_PSTATEMENT,
        ],
    )
}

/// Whether the server chose a statement to end because others were in its way: nothing of it was done.
fn is_in_the_way(error: &Error) -> bool {
    is_one_of(
        error,
        &[
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
        ],
    )
}

fn is_one_of(error: &Error, codes: &[SqlState]) -> bool {
    error.code().is_some_and(|code| codes.contains(code))
}
