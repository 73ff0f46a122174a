//! What became of a commit that was not confirmed.
//!
//! A commit can wait for a synchronous standby for as long as the standby is away. The caller is told that
//! its outcome is unknown; the commit waits on, in a session and with locks that end with the wait. If it has lost
//! its session, what it has stored can be read although the standby may lack it. So what is found in the database
//! counts as done only after a [later commit](confirm) was confirmed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_postgres::tokio_postgres::Client;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Database, Parameter};

use super::{failure, of_write};
use crate::StorageError;

const TRANSACTION: &str = "SELECT pg_current_xact_id()::text";

const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";

/// Writes to the log of the database, and to no table: a commit that has written nothing waits for no standby. Where
/// commits wait for none, it writes nothing, and its commit waits for no disk either: what can be read is there.
const WRITE: &str = "SELECT pg_logical_emit_message(true, 'tidings', ''::text)
    WHERE current_setting('synchronous_standby_names', true) <> ''";

/// The number of the transaction that is open.
pub(super) async fn transaction_id(client: &Client) -> Result<String, StorageError> {
    let row = client.query_typed_one(TRANSACTION, &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(failure)
}

/// What the database says of a transaction: that it is `in progress`, `committed` or `aborted`.
pub(super) async fn status(database: &Database, id: &str) -> Result<String, StorageError> {
    let parameters: [Parameter<'_>; 1] = [(&id, Type::TEXT)];
    let row =
        database.run(|client| async move { client.query_typed_opt(STATUS, &parameters).await });
    let row = row.await?;
    let status = row.and_then(|row| row.try_get::<_, Option<String>>(0).transpose());
    status
        .transpose()
        .map_err(StorageError::failed)?
        .ok_or_else(|| StorageError::failed("the transaction is too old"))
}

/// Returns when all that can be read is also where commits wait for it to be, on a synchronous standby too. What
/// has lost its session, or the server, while it waited can be read and was not waited for.
pub(super) async fn confirm(database: &Database) -> Result<(), StorageError> {
    let written = database.run(|client| async move { client.query_typed(WRITE, &[]).await });
    written.await.map(drop).map_err(of_write)
}

/// Makes the commit of the open transaction [confirm](confirm) what the transaction has found.
pub(super) async fn confirm_in(client: &Client) -> Result<(), StorageError> {
    let written = client.query_typed(WRITE, &[]).await;
    written.map(drop).map_err(failure)
}

/// The transaction whose commit may still wait. There is at most one for each connection that commits: each
/// holds a session, of which the server has few.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(Mutex<Option<String>>);

impl Unconfirmed {
    pub(super) fn remember(&self, id: String) {
        *self.lock() = Some(id);
    }

    /// Succeeds if no commit waits.
    pub(super) async fn has_ended(&self, database: &Database) -> Result<(), StorageError> {
        let Some(id) = self.lock().clone() else {
            return Ok(());
        };
        match status(database, &id).await {
            Ok(status) if status == "in progress" => Err(StorageError::unavailable(
                "the commit of an earlier transaction has not ended",
            )),
            Err(error @ StorageError::Unavailable { .. }) => Err(error),
            // A database that does not know the number does not run the transaction.
            _ => {
                self.lock().take();
                Ok(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // It is replaced as a whole, so a poisoned lock is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
