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
pub(super) mod inspection;
mod queue;
mod requests;

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tidings_notify::Presence;
use tidings_notify::postgres::{self as logs, PostgresStore};
use tidings_notify::presence::postgres::{self as presence, PostgresPresence};
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{self, Client};
use tidings_postgres::{Config, Database, Parameter};
use tidings_stream::postgres::{PostgresEngine, PostgresOptions};
use tidings_stream::{ServiceConfig, Streams};
use tidings_webhooks::postgres as webhooks;
use tokio_util::task::AbortOnDropHandle;

use self::accept::Acceptor;
use self::queue::Queue;
use self::requests::{Record, Recording};
use super::stored::{self, Kept};
use super::{
    Accept, Accepted, ApiKeyStore, Change, Changed, Keep, KeptResponse, NewResponse, PostgresUrl,
    Records, Redis, Requests, Storage, StorageError, Turn,
};
use crate::idempotency::Once;

const COMPONENT: &str = "tidings_server";

/// The logs of users have four connections, and each takes the next requests before it has replied to the first.
const READS_AT_ONCE: usize = 16;

/// The steps of the migration. One that was released is never changed; a change is another step.
const STEPS: &[&str] = &[
    include_str!("postgres/schema.sql"),
    include_str!("postgres/api_keys.sql"),
];

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
    if tidings_import::is_unfinished(&Database::new(config.clone())).await? {
        return Err(StorageError::failed(tidings_import::Error::Unfinished));
    }
    open_in(config, redis).await
}

pub(super) async fn open_in(config: Config, redis: Option<Redis>) -> Result<Storage, StorageError> {
    let database = Database::new(config.clone());
    database.migrate(COMPONENT, STEPS).await?;
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
    };
    let (queue, accepting) = queue::queue(acceptor(), acceptor(), config.reply_limit());
    let records = Arc::new(PostgresRecords {
        queue,
        logs: logs.clone(),
        database,
        begin: config.begin(),
        transactions: tokio::sync::Mutex::new(Database::new(config)),
        closing: tokio_util::sync::CancellationToken::new(),
        _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)),
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
    })
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
    transactions: tokio::sync::Mutex<Database>,
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
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        self.run(statement).await?.map_err(of_write)
    }

    async fn run<T, F>(
        &self,
        statement: impl FnOnce(Arc<tidings_postgres::Client>) -> F + Send,
    ) -> Result<Result<T, tidings_postgres::Error>, StorageError>
    where
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
        let changing = async {
            let database = self.transactions.lock().await;
            let mut tries = 0;
            loop {
                let is_committing = AtomicBool::new(false);
                let run = database.run(|client| {
                    transaction(client, async |client| {
                        client.batch_execute(&self.begin).await.map_err(failure)?;
                        let changed = claim_and_make(client, &change, keep.as_ref()).await?;
                        is_committing.store(true, Ordering::Relaxed);
                        client.batch_execute("COMMIT").await.map_err(failure)?;
                        Ok(changed)
                    })
                });
                let changed: Result<Changed, StorageError> = run.await.map_err(|error| {
                    if is_committing.load(Ordering::Relaxed) {
                        of_write(error)
                    } else {
                        error.into()
                    }
                })?;
                tries += 1;
                match changed {
                    Err(error) if tries < TRIES && was_in_the_way(&error) => {}
                    changed => return changed,
                }
            }
        };
        let changed = self.closing.run_until_cancelled(changing).await;
        changed.ok_or(StorageError::Closed)?
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
                Some(Accepted::Repeated(stored::decode(drafts, &events)?))
            }
        })
    }

    async fn earlier_change(&self, once: &Once) -> Result<Option<Changed>, StorageError> {
        let find = |client: Arc<tidings_postgres::Client>| async move {
            requests::find(&**client, once).await
        };
        Ok(self.statement(find).await??.of_change())
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
        Change::Operate(operation) => Ok(webhooks::operate_in(client, operation).await?.into()),
    }
}

/// Runs the statements of a transaction, with its begin and its commit among them. After an error of
/// theirs the transaction is rolled back; if that fails too, the connection is of no more use.
async fn transaction<T>(
    client: Arc<tidings_postgres::Client>,
    statements: impl AsyncFnOnce(&Client) -> Result<T, StorageError>,
) -> Result<Result<T, StorageError>, tokio_postgres::Error> {
    let outcome = statements(&client).await;
    if outcome.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    Ok(outcome)
}

/// How often a transaction is tried that the database ended because it was in another's way.
const TRIES: u32 = 5;

/// Whether the database has undone a transaction because of others, so that it can be tried again.
fn was_in_the_way(error: &StorageError) -> bool {
    const CODES: [&SqlState; 2] = [
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    let code = database_error(error).and_then(tidings_postgres::Error::code);
    code.is_some_and(|code| CODES.contains(&code))
}

/// The error of a statement within a transaction.
fn failure(error: tokio_postgres::Error) -> StorageError {
    tidings_postgres::Error::of_statement(error).into()
}

impl From<tidings_postgres::Error> for StorageError {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            full if full.is_full() => Self::Full {
                source: Arc::new(full),
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
        let source = Arc::new(error);
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
    crate::error::find(&**source)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidings_notify::{Draft, EventType, Payload, UserId};
    use tidings_postgres::Config;
    use tidings_test_support::{PostgresServer, Schema};

    use tidings_webhooks::{EndpointSettings, NewEndpoint, Options, Owner, Webhooks};

    use super::super::conformance::{self, Handles};
    use super::super::{Accept, Accepted, Change, Changed, StorageError};

    /// What another package wraps in errors of its own keeps its code, by which a batch is tried again.
    #[tokio::test]
    async fn regression_the_code_of_a_statement_is_found_behind_the_errors_of_other_packages() {
        let (schema, _handles) = open().await;
        let client = Config::new(&schema.url()).unwrap().connect().await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute("SELECT 1 / 0").await.unwrap_err();
        let stream = tidings_stream::StreamName::new("app", "default", "webhook-events");
        let message = tidings_stream::NewMessage::new("x");
        let failed =
            tidings_stream::postgres::publish_in(&*client, &stream.unwrap(), &[message]).await;
        let failed = tidings_webhooks::StoreError::backend(failed.unwrap_err());
        let error = super::StorageError::from(failed);
        let code = super::database_error(&error).and_then(tidings_postgres::Error::code);
        let code = code.map(tidings_postgres::tokio_postgres::error::SqlState::code);
        assert_eq!(code, Some("25P02"), "{error:?}");
    }

    #[tokio::test]
    async fn regression_keys_of_another_schema_of_the_database_are_other_keys() {
        let (schema, _handles) = open().await;
        let (other, _others) = open().await;
        let key = crate::idempotency::IdempotencyKey::new("key").unwrap();
        let once = crate::idempotency::Once::new(key, "/v1/notifications", b"body");
        let elsewhere = Config::new(&other.url()).unwrap().connect().await.unwrap();
        elsewhere.batch_execute("BEGIN").await.unwrap();
        let claimed = super::requests::claim(&*elsewhere, &[&once]).await.unwrap();
        assert!(matches!(claimed[0], super::Known::New));
        let here = Config::new(&schema.url()).unwrap().connect().await.unwrap();
        here.batch_execute("BEGIN").await.unwrap();
        let claimed = super::requests::claim(&*here, &[&once]).await.unwrap();
        assert!(matches!(claimed[0], super::Known::New));
        // Nothing is left that the schemas' end would wait for.
        for client in [here, elsewhere] {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }

    /// Two handles that share nothing but the database, as two instances do.
    async fn open() -> (Schema, Handles) {
        let schema = Schema::create().await;
        let config = Config::new(&schema.url()).unwrap();
        let (first, second) = tokio::join!(
            super::open_in(config.clone(), None),
            super::open_in(config.clone(), None)
        );
        let handles = Handles {
            first: first.unwrap(),
            second: second.unwrap(),
        };
        (schema, handles)
    }

    /// The change waits for the lane, whose holder then waits for the delivery: the database ends one of the two.
    #[tokio::test]
    async fn a_change_that_ends_in_a_deadlock_is_made_again() {
        let (schema, handles) = open().await;
        let storage = &handles.first;
        let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
        let options = Options::default().with_schedule([Duration::from_secs(3600)]);
        let webhooks = Webhooks::start(store, streams, options).await.unwrap();
        let new = NewEndpoint::new(
            Owner::Operator,
            EndpointSettings::new("http://127.0.0.1:9/"),
        );
        let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
        let test = webhooks.prepare_test(endpoint.id).await.unwrap().unwrap();
        let tested = storage.records.change(Change::Operate(test), None).await;
        let Changed::Made(Some(delivery)) = tested.unwrap() else {
            panic!("a test has a delivery");
        };
        let other = Config::new(&schema.url()).unwrap().connect().await.unwrap();
        let begin = "BEGIN; SELECT 1 FROM tidings_webhook_lane FOR UPDATE";
        other.batch_execute(begin).await.unwrap();
        let retry = Change::Operate(webhooks.prepare_retry(delivery.id));
        let records = Arc::clone(&storage.records);
        let changing = tokio::spawn(async move { records.change(retry, None).await });
        let waits = "SELECT 1 FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%tidings_webhook_retry%'";
        let watching = Config::new(&schema.url()).unwrap().connect().await.unwrap();
        while watching.query(waits, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cross = "UPDATE tidings_webhook_delivery SET due_at = due_at";
        // Which of the two is ended is the database's choice.
        let _ended = other.batch_execute(cross).await;
        other.batch_execute("ROLLBACK").await.unwrap();
        let changed = changing.await.unwrap().unwrap();
        assert!(matches!(changed, Changed::Made(Some(_))), "{changed:?}");
    }

    conformance::suite!(open(), work_of_one_instance_is_done_by_one_at_a_time);

    /// Makes commits wait for a standby that does not exist, and returns when they do.
    fn hold_commits(server: &PostgresServer) {
        server
            .execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
            .unwrap();
        server.execute("SELECT pg_reload_conf()").unwrap();
        std::thread::scope(|scope| {
            loop {
                let write = "DROP TABLE IF EXISTS held; CREATE TABLE held ()";
                let commit = scope.spawn(move || server.execute(write).is_ok());
                while !commit.is_finished() {
                    if server.execute(END_WAITING).unwrap().trim() != "0" {
                        return;
                    }
                }
            }
        });
    }

    /// How many connections it has ended whose commit waits.
    const END_WAITING: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep'";

    /// Ends the connection of a commit that waits: it has been made, and is not confirmed.
    async fn cut_off_a_commit(server: &PostgresServer) {
        while server.execute(END_WAITING).unwrap().trim() == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_that_is_not_confirmed_is_looked_up() {
        let server = PostgresServer::start().unwrap();
        let storage = super::open_in(Config::new(&server.url()).unwrap(), None)
            .await
            .unwrap();
        hold_commits(&server);
        let user = UserId::new("anna").unwrap();
        let event_type = EventType::new("count").unwrap();
        let draft = Draft::new(user.clone(), event_type, Payload::from_value(&1).unwrap());
        let accept = Accept {
            drafts: vec![draft],
            once: None,
        };
        let records = Arc::clone(&storage.records);
        let accepting = tokio::spawn(async move { records.accept(accept).await });
        cut_off_a_commit(&server).await;
        let accepted = accepting.await.unwrap().unwrap();
        let Accepted::Stored { events, .. } = accepted else {
            panic!("expected stored notifications, got {accepted:?}")
        };
        let found = storage.logs.find(&user, events[0].id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&events[0]));
    }

    /// A caller that was told that nothing is stored would make another one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn regression_a_change_that_is_not_confirmed_may_have_been_made() {
        let server = PostgresServer::start().unwrap();
        let storage = super::open_in(Config::new(&server.url()).unwrap(), None)
            .await
            .unwrap();
        hold_commits(&server);
        let key = conformance::api_key("new", None);
        let id = key.id.clone();
        let change = Change::CreateKey { key, limit: 10 };
        let records = Arc::clone(&storage.records);
        let changing = tokio::spawn(async move { records.change(change, None).await });
        cut_off_a_commit(&server).await;
        let changed = changing.await.unwrap();
        let is_unknown =
            |error: &StorageError| matches!(error, StorageError::OutcomeUnknown { .. });
        assert!(changed.as_ref().is_err_and(is_unknown), "{changed:?}");
        let all = storage.api_keys.all().await.unwrap();
        assert_eq!(all.keys.len(), 1);
        let keys = Arc::clone(&storage.api_keys);
        let removing = tokio::spawn(async move { keys.remove(&id).await });
        cut_off_a_commit(&server).await;
        let removed = removing.await.unwrap();
        assert!(removed.as_ref().is_err_and(is_unknown), "{removed:?}");
        assert!(storage.api_keys.all().await.unwrap().keys.is_empty());
    }
}
