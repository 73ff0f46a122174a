//! A change, with the response that a repeat gets, in one transaction.

use std::sync::{Mutex, PoisonError};

use tidings_postgres::Database;
use tidings_postgres::tokio_postgres::Client;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_webhooks::postgres as webhooks;
use tokio::time::timeout;

use super::commit::{self, Unconfirmed};
use super::requests::{Record, Recording};
use super::{
    Known, PostgresRecords, api_keys, database_error, failure, of_write, requests, transaction,
};
use crate::stored::Kept;
use crate::{Change, Changed, Keep, StorageError};

/// How often a transaction is tried that the database ended because it was in another's way.
const TRIES: u32 = 5;

/// Closes the connection when it is dropped, and with it the transaction that is open on it: the next change
/// would become a part of it.
struct OpenTransaction<'a>(&'a Database);

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

/// What makes changes, one at a time.
#[derive(Debug)]
pub(super) struct Transactions {
    /// Nothing else uses this connection: a transaction is several statements.
    pub(super) database: Database,
    pub(super) unconfirmed: Unconfirmed,
}

impl PostgresRecords {
    /// Makes a change, again if the database ended its transaction for another.
    pub(super) async fn make_change(
        &self,
        change: &Change,
        keep: Option<&Keep>,
    ) -> Result<Changed, StorageError> {
        let limit = self.database.config().reply_limit();
        let transactions = timeout(limit, self.transactions.lock()).await;
        let transactions = transactions.map_err(|_elapsed| {
            StorageError::unavailable("the changes before this one have not ended in time")
        })?;
        let Transactions {
            database,
            unconfirmed,
        } = &*transactions;
        unconfirmed.has_ended(database).await?;
        let mut tries = 0;
        loop {
            // The transaction, once its commit was sent.
            let committing = Mutex::new(None);
            let run = database.run(|client| {
                transaction(client, async |client| {
                    let (begun, id) = futures_util::join!(
                        client.batch_execute(&self.begin),
                        commit::transaction_id(client),
                    );
                    begun.map_err(failure)?;
                    let id = id?;
                    let changed = claim_and_make(client, change, keep).await?;
                    *committing.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
                    let _committing = client.committing();
                    // It may have found what it wants, and have written nothing.
                    let is_done = matches!(changed, Changed::Made(_) | Changed::Repeated(_));
                    // Sent at once. If the first one is refused, the server makes a rollback of the commit.
                    futures_util::try_join!(
                        async {
                            if is_done {
                                commit::confirm_in(client).await
                            } else {
                                Ok(())
                            }
                        },
                        async { client.batch_execute("COMMIT").await.map_err(failure) },
                    )?;
                    Ok(changed)
                })
            });
            let open = OpenTransaction(database);
            let run = run.await;
            // It has ended, or `run` has given the connection up.
            std::mem::forget(open);
            let committing = committing
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            let changed: Result<Changed, StorageError> = run.map_err(|error| match committing {
                Some(id) if error.may_have_been_done() => {
                    unconfirmed.remember(id);
                    of_write(error)
                }
                _ => error.into(),
            })?;
            tries += 1;
            match changed {
                Err(error) if tries < TRIES && was_in_the_way(&error) => {}
                changed => return changed,
            }
        }
    }
}

/// Makes the change, unless the request is a repeat.
async fn claim_and_make(
    client: &Client,
    change: &Change,
    keep: Option<&Keep>,
) -> Result<Changed, StorageError> {
    let Some(Keep { once, respond }) = keep else {
        return make(client, change).await;
    };
    let known = requests::claim(client, &[once]).await?.pop();
    if let Some(earlier) = known.unwrap_or(Known::Busy).of_change() {
        return Ok(earlier);
    }
    let changed = make(client, change).await?;
    if let Changed::Made(delivery) = &changed {
        let response = respond(delivery.as_ref())?;
        let kept = Kept::Response(&response);
        Recording::new([Record { once, kept }])?
            .store(client)
            .await?;
    }
    Ok(changed)
}

async fn make(client: &Client, change: &Change) -> Result<Changed, StorageError> {
    use tidings_webhooks::StoreError;
    match change {
        Change::CreateEndpoint(endpoint) => {
            match webhooks::create_endpoint_in(client, endpoint).await {
                Ok(()) => Ok(Changed::Made(None)),
                Err(StoreError::TooManyEndpoints { limit }) => Ok(Changed::TooMany { limit }),
                Err(error) => Err(error.into()),
            }
        }
        Change::CreateKey { key, limit } => api_keys::insert(client, key, *limit).await,
        Change::Operate(operation) => Ok(webhooks::apply_in(client, operation).await?.into()),
    }
}

/// Whether the database has undone a transaction because of others, so that it can be tried again.
fn was_in_the_way(error: &StorageError) -> bool {
    const CODES: [&SqlState; 2] = [
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    let code = database_error(error).and_then(tidings_postgres::Error::code);
    code.is_some_and(|code| CODES.contains(&code))
}
