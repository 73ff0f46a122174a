//! The storage on a PostgreSQL database, which many instances share.
//!
//! | table `tidings_server_…` | holds |
//! |---|---|
//! | `request` | one row an idempotency key: what became of the request |
//! | `turn` | one row a kind of work that one instance at a time does |
//! | `api_key` | one row an API key, without the key |
//! | `probe` | the row that readiness writes |
//!
//! Requests to accept that wait at the same time share a transaction (`queue.rs`, `accept.rs`). Every
//! other operation is a transaction of its own.

mod accept;
mod api_keys;
mod change;
mod commit;
pub(super) mod inspection;
mod queue;
mod requests;

use std::error::Error as StdError;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use tidings_import::Starting;
use tidings_notify::Presence;
use tidings_notify::postgres::{self as logs, PostgresStore};
use tidings_notify::presence::postgres::{self as presence, PostgresPresence};
use tidings_postgres::tokio_postgres;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Config, Database, Parameter};
use tidings_stream::postgres::{PostgresEngine, PostgresOptions};
use tidings_stream::{ServiceConfig, Streams};
use tidings_webhooks::postgres as webhooks;
use tokio_util::task::AbortOnDropHandle;

use self::accept::Acceptor;
use self::change::Transactions;
use self::commit::Unconfirmed;
use self::queue::Queue;
use super::import::PARTS;
use super::stored;
use super::{
    Accept, Accepted, ApiKeyStore, Change, Changed, Keep, KeptResponse, NewResponse, PostgresUrl,
    Records, Redis, Requests, Storage, StorageError, Turn,
};
use crate::explain::explain;
use crate::idempotency::Once;

const COMPONENT: &str = "tidings_server";

/// The logs of users have four connections, and each takes the next requests before it has replied to the first.
const READS_AT_ONCE: usize = 16;

/// The steps of the migration. One that was released is never changed; a change is another step.
const STEPS: &[&str] = &[concat!(
    include_str!("postgres/schema.sql"),
    include_str!("postgres/api_keys.sql"),
)];

const PROBE: &str = "
    INSERT INTO tidings_server_probe (one, at) VALUES (true, clock_timestamp())
    ON CONFLICT (one) DO UPDATE SET at = excluded.at";

const TAKE_TURN: &str = "
    INSERT INTO tidings_server_turn AS turn (work, instance, until)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (work) DO UPDATE SET instance = excluded.instance, until = excluded.until
    WHERE turn.instance = excluded.instance OR turn.until < clock_timestamp()";

pub(super) async fn open(url: &PostgresUrl, redis: Option<Redis>) -> Result<Storage, StorageError> {
    let config = Config::new(url.expose())?;
    let starting = Starting::begin(&config).await?;
    let starting = AbortOnDropHandle::new(tokio::spawn(keep_imports_out(starting).boxed()));
    let storage = open_in(config, redis).await?;
    Ok(Storage {
        starting: Some(Arc::new(starting)),
        ..storage
    })
}

/// Keeps imports out of the database until they see that a server uses it.
async fn keep_imports_out(starting: Starting) {
    if let Err(error) = starting.until_in_use(PARTS).await {
        tracing::error!(
            error = explain(&error),
            "an import into the database began while this server started: stop the server, and run the import again"
        );
    }
}

pub(super) async fn open_in(config: Config, redis: Option<Redis>) -> Result<Storage, StorageError> {
    let database = Database::new(config.clone());
    database.migrate(COMPONENT, STEPS).await?;
    if let Some(warning) = without_tls(&database).await? {
        tracing::warn!("{warning}");
    }
    let options = logs::PostgresOptions::default();
    let (presence, options): (Arc<dyn Presence>, _) = match redis {
        Some(redis) => (redis.presence, options.with_wake_channel(redis.wakes)),
        None => (presence_in(&config).await?, options),
    };
    let logs = PostgresStore::open(config.clone(), options).await?;
    // A pooler may give each transaction another session, which would not know a prepared statement.
    let options = PostgresOptions::default().without_prepared_statements();
    let engine = PostgresEngine::open(config.clone(), options).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let options = webhooks::PostgresOptions::default();
    let webhooks = webhooks::PostgresStore::open(config.clone(), options).await?;
    let stream = streams.name(tidings_webhooks::STREAM)?;
    let acceptor = || Acceptor {
        database: Database::new(config.clone()),
        begin: config.begin(),
        logs: logs.clone(),
        stream: stream.clone(),
        unconfirmed: Unconfirmed::default(),
    };
    let (queue, accepting) = queue::queue(acceptor(), acceptor(), config.reply_limit());
    let records = Arc::new(PostgresRecords {
        queue,
        logs: logs.clone(),
        database,
        begin: config.begin(),
        transactions: tokio::sync::Mutex::new(Transactions {
            database: Database::new(config),
            unconfirmed: Unconfirmed::default(),
        }),
        closing: tokio_util::sync::CancellationToken::new(),
        _accepting: AbortOnDropHandle::new(tokio::spawn(accepting.boxed())),
    });
    Ok(Storage {
        logs: Arc::new(logs),
        streams,
        webhooks: Arc::new(webhooks),
        presence,
        api_keys: Arc::clone(&records) as Arc<dyn ApiKeyStore>,
        requests: Arc::clone(&records) as Arc<dyn Requests>,
        records,
        reads_at_once: READS_AT_ONCE,
        starting: None,
    })
}

/// What an operator should know if the connection to another machine has no TLS.
async fn without_tls(database: &Database) -> Result<Option<String>, tidings_postgres::Error> {
    let host = |client: Arc<tidings_postgres::Client>| async move {
        Ok(client.plain_host().map(str::to_owned))
    };
    let warning = |host| {
        format!(
            "the connection to PostgreSQL at {host} has no TLS, so others on the way can read it; \
             `sslmode=verify-full` in the URL demands TLS"
        )
    };
    Ok(database.run(host).await?.map(warning))
}

async fn presence_in(config: &Config) -> Result<Arc<dyn Presence>, StorageError> {
    let options = presence::PostgresOptions::default();
    let presence = PostgresPresence::open(config.clone(), options).await?;
    Ok(Arc::new(presence))
}

/// The server's own tables.
#[derive(Debug)]
struct PostgresRecords {
    queue: Queue,
    logs: PostgresStore,
    /// For single statements, which callers may mix.
    database: Database,
    /// What begins a transaction.
    begin: String,
    /// For transactions of several statements, one at a time.
    transactions: tokio::sync::Mutex<Transactions>,
    closing: tokio_util::sync::CancellationToken,
    _accepting: AbortOnDropHandle<()>,
}

/// A request as the table keeps it.
enum Known {
    New,
    /// Another transaction has locked the key.
    Busy,
    /// The request was made.
    Repeated {
        /// The [stored](super::stored) events.
        events: String,
        /// The response, of a request that did not become notifications.
        response: Option<String>,
    },
    /// The key was used for another request.
    Conflict,
}

impl Known {
    /// What a request that does not become notifications has found.
    fn of_change(self) -> Option<Changed> {
        match self {
            Self::New => None,
            Self::Busy => Some(Changed::Running),
            Self::Conflict => Some(Changed::Conflict),
            Self::Repeated { response, .. } => Some(stored::find(response)),
        }
    }
}

impl PostgresRecords {
    /// Runs a statement that only reads, or whose effect may come twice.
    async fn statement<T, F>(
        &self,
        statement: impl FnOnce(Arc<tidings_postgres::Client>) -> F + Send,
    ) -> Result<T, StorageError>
    where
        T: Send,
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        Ok(self.run(statement).await??)
    }

    /// Runs a statement that changes what a caller sees.
    async fn write<T, F>(
        &self,
        statement: impl FnOnce(Arc<tidings_postgres::Client>) -> F + Send,
    ) -> Result<T, StorageError>
    where
        T: Send,
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        self.run(statement).await?.map_err(of_write)
    }

    /// Waits until what a caller is told to be done already counts.
    async fn confirm_found(&self) -> Result<(), StorageError> {
        let confirmed = commit::confirm(&self.database);
        let confirmed = self.closing.run_until_cancelled(confirmed).await;
        confirmed.ok_or(StorageError::Closed)?
    }

    async fn run<T, F>(
        &self,
        statement: impl FnOnce(Arc<tidings_postgres::Client>) -> F + Send,
    ) -> Result<Result<T, tidings_postgres::Error>, StorageError>
    where
        T: Send,
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let run = self.database.run(statement);
        let run = self.closing.run_until_cancelled(run);
        run.await.ok_or(StorageError::Closed)
    }
}

#[async_trait]
impl Records for PostgresRecords {
    async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError> {
        let accepted = self.queue.accept(accept).await?;
        if let Accepted::Stored { events, .. } = &accepted {
            self.logs.wake(events.iter().map(|event| &event.user));
        }
        Ok(accepted)
    }

    async fn change(&self, change: Change, keep: Option<Keep>) -> Result<Changed, StorageError> {
        let changing = self.make_change(&change, keep.as_ref());
        let changed = self.closing.run_until_cancelled(changing).await;
        changed.ok_or(StorageError::Closed)?
    }

    async fn confirm(&self) -> Result<(), StorageError> {
        self.confirm_found().await
    }

    async fn take_turn(&self, turn: &Turn<'_>) -> Result<bool, StorageError> {
        let secs = turn.length.as_secs_f64();
        let parameters: [Parameter<'_>; 3] = [
            (&turn.work, Type::TEXT),
            (&turn.instance, Type::TEXT),
            (&secs, Type::FLOAT8),
        ];
        let taken = self
            .statement(|client| async move { client.execute_typed(TAKE_TURN, &parameters).await });
        Ok(taken.await? > 0)
    }

    async fn ready(&self) -> Result<(), StorageError> {
        let probe = |client: Arc<tidings_postgres::Client>| async move {
            client.execute_typed(PROBE, &[]).await
        };
        self.statement(probe).await.map(drop)
    }

    async fn clean(&self) -> Result<usize, StorageError> {
        let clean =
            |client: Arc<tidings_postgres::Client>| async move { requests::clean(&**client).await };
        let removed = self.statement(clean).await?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    async fn close(&self) {
        self.queue.close().await;
        self.closing.cancel();
    }
}

#[async_trait]
impl Requests for PostgresRecords {
    async fn earlier(&self, accept: Accept) -> Result<Option<Accepted>, StorageError> {
        let Accept { drafts, once } = accept;
        let Some(once) = once else { return Ok(None) };
        let once = &once;
        let find = |client: Arc<tidings_postgres::Client>| async move {
            requests::find(&**client, once).await
        };
        Ok(match self.statement(find).await?? {
            Known::New | Known::Busy => None,
            Known::Conflict => Some(Accepted::Conflict),
            Known::Repeated { events, .. } => {
                self.confirm_found().await?;
                Some(Accepted::Repeated(stored::decode(drafts, &events)?))
            }
        })
    }

    async fn earlier_change(&self, once: &Once) -> Result<Option<Changed>, StorageError> {
        let find = |client: Arc<tidings_postgres::Client>| async move {
            requests::find(&**client, once).await
        };
        let found = self.statement(find).await??.of_change();
        if let Some(Changed::Repeated(_)) = found {
            self.confirm_found().await?;
        }
        Ok(found)
    }

    async fn responses(&self, after: &str) -> Result<Vec<KeptResponse>, StorageError> {
        let select = |client: Arc<tidings_postgres::Client>| async move {
            requests::responses(&**client, after).await
        };
        self.statement(select).await
    }

    async fn replace_responses(&self, new: Vec<NewResponse>) -> Result<(), StorageError> {
        let new = new.as_slice();
        let replace = |client: Arc<tidings_postgres::Client>| async move {
            requests::replace(&**client, new).await
        };
        self.statement(replace).await.map(drop)
    }
}

/// Runs the statements of a transaction, with its begin and its commit among them. After an error of
/// theirs the transaction is rolled back; if that fails too, the connection is of no more use.
async fn transaction<T>(
    client: Arc<tidings_postgres::Client>,
    statements: impl AsyncFnOnce(&tidings_postgres::Client) -> Result<T, StorageError>,
) -> Result<Result<T, StorageError>, tokio_postgres::Error> {
    let outcome = statements(&client).await;
    if outcome.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    Ok(outcome)
}

/// The error of a statement within a transaction.
fn failure(error: tokio_postgres::Error) -> StorageError {
    tidings_postgres::Error::of_statement(error).into()
}

impl From<tidings_import::Error> for StorageError {
    fn from(error: tidings_import::Error) -> Self {
        match error {
            tidings_import::Error::Target(error) => error.into(),
            refusal => Self::failed(refusal),
        }
    }
}

impl From<tidings_postgres::Error> for StorageError {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            full if full.is_full() => Self::Full {
                source: full.into(),
            },
            unavailable if unavailable.is_unavailable() => Self::unavailable(unavailable),
            other => Self::failed(other),
        }
    }
}

pub(super) fn of_engine(cause: &(dyn StdError + 'static)) -> Option<StorageError> {
    let error: &tidings_postgres::Error = cause.downcast_ref()?;
    Some(of_write(error.clone()))
}

/// The error of a statement that changes something: without a reply, it may have done so.
fn of_write(error: tidings_postgres::Error) -> StorageError {
    if error.may_have_been_done() {
        let source = error.into();
        StorageError::OutcomeUnknown { source }
    } else {
        error.into()
    }
}

/// What PostgreSQL said, if it is behind this error.
fn database_error(error: &StorageError) -> Option<&tidings_postgres::Error> {
    let (StorageError::Full { source }
    | StorageError::Unavailable { source }
    | StorageError::OutcomeUnknown { source }
    | StorageError::Failed { source }) = error
    else {
        return None;
    };
    crate::explain::find(&**source)
}

#[cfg(test)]
mod tests;
