use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_reconnect::Slot;
use tokio::time::{Instant, timeout_at};

use crate::reason::Reason;
use crate::{Client, Config, Error, migration};

/// A PostgreSQL database, over one shared connection.
///
/// The connection is made when it is first needed, and made again when it broke. Calls are not retried:
/// the caller knows whether the operation is idempotent.
///
/// Clones share the connection. It is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    slot: Slot<Client, Error>,
    /// Whether the server refuses connections that limit the time of statements.
    refuses_limit: AtomicBool,
}

impl Database {
    /// A database that is not connected to yet.
    pub fn new(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                slot: Slot::new(),
                refuses_limit: AtomicBool::new(false),
            }),
        }
    }

    /// Where it is.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Runs statements on the shared connection, and returns their outcome.
    ///
    /// A statement that takes longer than the reply limit is cancelled, and its outcome is that of the
    /// cancellation: [`Error::Refused`], and nothing was done. Only when the server does not reply to that
    /// either, within a fifth of the limit, the outcome is unknown. The server ends such a statement by
    /// itself at the same limit, unless a pooler is in between.
    ///
    /// A commit that waits for a synchronous standby is not undone by that: the server ends the wait and
    /// reports the commit as done. Its outcome is unknown then, also if an administrator has cancelled it.
    /// Where [the server commits](Client::committing), nothing is cancelled, and the outcome is unknown at
    /// the limit.
    ///
    /// Statements of other callers come in between, so a transaction of several statements needs
    /// [a connection of its own](Config::connect). A cancellation can hit the statement of another caller
    /// that is in front of the one that is late; that one is refused too. Behind a pooler every statement
    /// may get another session: `query_typed` and `execute_typed` prepare nothing that would have to
    /// outlive them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection, [`Error::Refused`] when the server refused or
    /// cancelled a statement, [`Error::NoReply`] when the server does not reply in time; the next call
    /// reconnects.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run all statements, some or none.
    pub async fn run<T, F>(
        &self,
        statements: impl FnOnce(Arc<Client>) -> F + Send,
    ) -> Result<T, Error>
    where
        T: Send,
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let client = self.client().await?;
        let statements = statements(Arc::clone(&client));
        let mut done = None;
        {
            let running = pin!(async {
                done = Some(statements.await?);
                Ok(())
            });
            self.finish(&client, running).await?;
        }
        // It is there if they have succeeded.
        done.ok_or_else(Error::late)
    }

    /// Waits for the outcome of statements. It is not generic: `run` is compiled for each of its callers.
    async fn finish(
        &self,
        client: &Arc<Client>,
        mut running: Pin<&mut (dyn Future<Output = Result<(), tokio_postgres::Error>> + Send)>,
    ) -> Result<(), Error> {
        let limit = self.config().reply_limit();
        let begun = Instant::now();
        let cut_short = client.waits_cut_short();
        let mut outcome = timeout_at(begun + limit, running.as_mut()).await;
        if outcome.is_err() && !client.is_committing() {
            let _cancelling = client.cancelling();
            // What the server says of the cancelled statement is better than not knowing.
            let end = begun + limit + limit / 5;
            let cancelling = timeout_at(end, client.cancel());
            let (replied, sent) = tokio::join!(timeout_at(end, running), cancelling);
            outcome = replied;
            if sent.is_err() {
                // What is still on its way could cancel a later statement.
                self.shared.slot.discard(client);
            }
        }
        let error = match outcome {
            Ok(Ok(())) if client.waits_cut_short() != cut_short => {
                Error::NoReply(Reason::Unreplicated.into())
            }
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Error::of_statement(error),
            Err(_elapsed) => Error::late(),
        };
        if error.may_have_been_done() || error.is_read_only() {
            self.shared.slot.discard(client);
        }
        Err(error)
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let Shared {
            config,
            slot,
            refuses_limit,
        } = &*self.shared;
        let connect = async || {
            let with_limit = !refuses_limit.load(Ordering::Relaxed);
            let (client, has_limit) = config.connect_limited(with_limit).await?;
            refuses_limit.store(!has_limit, Ordering::Relaxed);
            Ok(client)
        };
        slot.connection(connect).await
    }

    /// Brings the tables of one component up to date: runs the `steps` that the database has not seen,
    /// in order, in one transaction. Concurrent calls wait for each other.
    ///
    /// A step may be several statements. Statements that cannot run in a transaction, such as `CREATE
    /// INDEX CONCURRENTLY`, are not allowed. A released step must not change; a change is a new step at
    /// the end. The table `tidings_schema` keeps the number of steps. When nothing is to be done it writes
    /// nothing, and needs no right to create tables.
    ///
    /// It takes as long as its steps take, which only the caller can limit.
    ///
    /// # Errors
    ///
    /// [`Error::NewerSchema`] when the database has seen more steps than there are,
    /// [`Error::Refused`] when a step fails, [`Error::Unsent`] when there is no connection,
    /// [`Error::NoReply`] when it broke. The call may be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves all of it done or nothing.
    pub async fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), Error> {
        // Statements of other callers would join the transaction on the shared connection.
        let config = &self.shared.config;
        let client = config.connect().await?;
        migration::apply(&client, &config.begin(), component, steps).await
    }

    /// Closes the connection once the calls that use it have ended. The next call reconnects.
    pub fn disconnect(&self) {
        self.shared.slot.clear();
    }
}
