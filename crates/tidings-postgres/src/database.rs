use std::sync::Arc;

use tidings_reconnect::Slot;
use tokio::time::timeout;

use crate::{Client, Config, Error, migration};

/// A PostgreSQL database, over one connection that all share.
///
/// The connection is made when it is first needed, and made again when it broke. Nothing is tried
/// again by itself: whoever asked knows whether twice is as good as once.
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
}

impl Database {
    /// A database that is not connected to yet.
    pub fn new(config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                slot: Slot::new(),
            }),
        }
    }

    /// Where it is.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Runs statements on the shared connection, and waits for what became of them, up to the limit
    /// for an answer.
    ///
    /// What others run comes in between, so a transaction of several statements needs
    /// [a connection of its own](Config::connect). Behind a pooler every statement may get another
    /// session: `query_typed` and `execute_typed` prepare nothing that would have to outlive them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection, [`Error::Refused`] when the server said no,
    /// [`Error::Unanswered`] when there is no word; then the next call connects again.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have done what it was to do, or a part of it.
    pub async fn run<T, F>(
        &self,
        statements: impl FnOnce(Arc<Client>) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let Shared { config, slot } = &*self.shared;
        let client = slot.connection(|| config.connect()).await?;
        let done = timeout(config.answer_limit(), statements(Arc::clone(&client))).await;
        let error = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Error::of_statement(error),
            Err(elapsed) => Error::unanswered(elapsed),
        };
        if error.may_have_been_done() {
            slot.discard(&client);
        }
        Err(error)
    }

    /// Brings the tables of one component up to date: runs those of `steps` that the database has not
    /// seen, in order, in one transaction. Several at the same time wait for each other.
    ///
    /// A step may be several statements; one that cannot be in a transaction, such as `CREATE INDEX
    /// CONCURRENTLY`, is none. A step that has been released is never changed; a change is a step at
    /// the end. How many steps there were is kept in the table `tidings_schema`. When there is
    /// nothing to do it writes nothing, and a role that may not make tables will do.
    ///
    /// It takes as long as its steps take, which only the caller can limit.
    ///
    /// # Errors
    ///
    /// [`Error::NewerSchema`] when the database has seen more steps than there are,
    /// [`Error::Refused`] when a step fails, [`Error::Unsent`] when there is no connection,
    /// [`Error::Unanswered`] when it broke. It may be tried again.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves all of it done or nothing.
    pub async fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), Error> {
        // Not on the shared connection, where others would come into its transaction.
        let client = self.shared.config.connect().await?;
        migration::apply(&client, component, steps).await
    }

    /// Closes the connection once those that use it now are done. The next use makes another.
    pub fn disconnect(&self) {
        self.shared.slot.clear();
    }
}
