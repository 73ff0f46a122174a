//! The storage on one SQLite file. Everything in it is written by one thread, in one transaction
//! per group of waiting calls.

pub(super) mod api_keys;
pub(super) mod idempotency;
pub(super) mod imported;
pub(super) mod inspection;

use std::error::Error as StdError;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tidings_notify::sqlite::{SqliteOptions, SqliteStore, append_in};
use tidings_notify::{Draft, Event, MemoryPresence};
use tidings_sqlite::rusqlite::{self, Connection, Transaction};
use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{ServiceConfig, StreamName, Streams};
use tidings_webhooks::WebhookEvent;

use self::idempotency::Known;
use super::stored::{self, Kept};
use super::{
    Accept, Accepted, ApiKeyStore, Change, Changed, Keep, KeptResponse, NewResponse, Records,
    Requests, Storage, StorageError, Turn,
};
use crate::idempotency::Once;

/// What the header of the file says of its program, so that the file of another is refused: "Tidg".
const APPLICATION_ID: i32 = 0x5469_6467;

/// Threads that read. Streams that lag, sweeps and webhook lanes share them.
const READERS: usize = 4;

/// Threads that serve lists, for a limited time each. One list that is slow leaves room for another.
const LIST_READERS: usize = 2;

pub(super) async fn open(path: &Path) -> Result<Storage, StorageError> {
    let database = database(path)?;
    warn_if_others_can_read(database.path());
    imported::warn_if_marked(&database).await?;
    open_in(database).await
}

/// Opens the file, which then belongs to this process, and leaves its tables as they are.
pub(super) fn database(path: &Path) -> Result<Database, tidings_sqlite::Error> {
    let options = Options::default()
        .with_application_id(APPLICATION_ID)
        .with_exclusive_lock()
        .with_readers(READERS)
        .with_list_readers(LIST_READERS);
    Database::open(path, &options)
}

/// The server makes its file for its own user. One that existed, such as a backup, keeps its mode.
fn warn_if_others_can_read(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{:o}", mode & 0o777),
            "other users of this machine can read or write the database, which contains secrets; run chmod 600"
        );
    }
}

/// Opens the parts in a database that is already open.
pub(super) async fn open_in(database: Database) -> Result<Storage, StorageError> {
    database
        .migrate(idempotency::COMPONENT, idempotency::STEPS)
        .await?;
    database
        .migrate(api_keys::COMPONENT, api_keys::STEPS)
        .await?;
    let logs = SqliteStore::open(database.clone(), SqliteOptions::default()).await?;
    let engine = SqliteEngine::open(database.clone()).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let webhooks = tidings_webhooks::sqlite::SqliteStore::open(database.clone()).await?;
    let records = Arc::new(SqliteRecords {
        stream: streams.name(tidings_webhooks::STREAM)?,
        database,
    });
    Ok(Storage {
        logs: Arc::new(logs),
        streams,
        webhooks: Arc::new(webhooks),
        // A file belongs to one server, its presence ends with it, and the server watches no transitions.
        presence: Arc::new(MemoryPresence::new().with_kept_transitions(0)),
        api_keys: Arc::clone(&records) as Arc<dyn ApiKeyStore>,
        requests: Arc::clone(&records) as Arc<dyn Requests>,
        records,
        reads_at_once: READERS,
        starting: None,
    })
}

/// The server's own tables.
#[derive(Debug, Clone)]
struct SqliteRecords {
    database: Database,
    /// The stream of what fan-out has to do.
    stream: StreamName,
}

#[async_trait]
impl Records for SqliteRecords {
    async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError> {
        let stream = self.stream.clone();
        let job = move |tx: &Transaction<'_>| write(tx, accept, &stream);
        match self.database.write(job).await? {
            Written::Stored {
                events,
                has_webhooks,
            } => Ok(Accepted::Stored {
                events,
                has_webhooks,
            }),
            Written::Repeated { drafts, stored } => {
                Ok(Accepted::Repeated(stored::decode(drafts, &stored)?))
            }
            Written::Conflict => Ok(Accepted::Conflict),
        }
    }

    async fn change(&self, change: Change, keep: Option<Keep>) -> Result<Changed, StorageError> {
        let job = move |tx: &Transaction<'_>| make_once(tx, &change, keep.as_ref());
        self.database.write(job).await
    }

    /// What can be read was waited for.
    async fn confirm(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// A file belongs to one server.
    async fn take_turn(&self, _turn: &Turn<'_>) -> Result<bool, StorageError> {
        Ok(true)
    }

    async fn ready(&self) -> Result<(), StorageError> {
        self.database.write_relaxed(idempotency::touch).await?;
        // A change may still fit in where nothing can be added.
        Ok(self.database.check_room()?)
    }

    async fn clean(&self) -> Result<usize, StorageError> {
        self.database.write_relaxed(idempotency::clean).await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

#[async_trait]
impl Requests for SqliteRecords {
    async fn earlier(&self, accept: Accept) -> Result<Option<Accepted>, StorageError> {
        let Accept { drafts, once } = accept;
        let Some(once) = once else { return Ok(None) };
        let look_up = move |connection: &Connection| idempotency::look_up(connection, &once);
        Ok(match self.database.read(look_up).await? {
            Known::New => None,
            Known::Conflict => Some(Accepted::Conflict),
            Known::Repeated { events, .. } => {
                Some(Accepted::Repeated(stored::decode(drafts, &events)?))
            }
        })
    }

    async fn earlier_change(&self, once: &Once) -> Result<Option<Changed>, StorageError> {
        let once = once.clone();
        let look_up = move |connection: &Connection| idempotency::look_up(connection, &once);
        Ok(self.database.read(look_up).await?.of_change())
    }

    async fn responses(&self, after: &str) -> Result<Vec<KeptResponse>, StorageError> {
        let after = after.to_owned();
        let select = move |connection: &Connection| idempotency::responses(connection, &after);
        self.database.read(select).await
    }

    async fn replace_responses(&self, new: Vec<NewResponse>) -> Result<(), StorageError> {
        let replace = move |tx: &Transaction<'_>| idempotency::replace(tx, &new);
        self.database.write(replace).await
    }
}

/// What the transaction of an accept did.
enum Written {
    Stored {
        events: Vec<Event>,
        has_webhooks: bool,
    },
    Repeated {
        drafts: Vec<Draft>,
        stored: String,
    },
    Conflict,
}

fn write(
    tx: &Transaction<'_>,
    accept: Accept,
    stream: &StreamName,
) -> Result<Written, StorageError> {
    let Accept { drafts, once } = accept;
    if let Some(once) = &once {
        match idempotency::look_up(tx, once)? {
            Known::New => {}
            Known::Conflict => return Ok(Written::Conflict),
            Known::Repeated { events: stored, .. } => {
                return Ok(Written::Repeated { drafts, stored });
            }
        }
    }
    let events = append_in(tx, &drafts)?;
    let outgoing: Vec<_> = events.iter().map(WebhookEvent::from).collect();
    let has_webhooks = tidings_webhooks::sqlite::accept_in(tx, stream, &outgoing)?;
    if let Some(once) = &once {
        idempotency::record(tx, once, Kept::Events(&events))?;
    }
    Ok(Written::Stored {
        events,
        has_webhooks,
    })
}

/// Makes the change, unless the request is a repeat.
fn make_once(
    tx: &Transaction<'_>,
    change: &Change,
    keep: Option<&Keep>,
) -> Result<Changed, StorageError> {
    let Some(Keep { once, respond }) = keep else {
        return make(tx, change);
    };
    if let Some(earlier) = idempotency::look_up(tx, once)?.of_change() {
        return Ok(earlier);
    }
    let changed = make(tx, change)?;
    if let Changed::Made(delivery) = &changed {
        let response = respond(delivery.as_ref())?;
        idempotency::record(tx, once, Kept::Response(&response))?;
    }
    Ok(changed)
}

fn make(tx: &Transaction<'_>, change: &Change) -> Result<Changed, StorageError> {
    use tidings_webhooks::StoreError;
    use tidings_webhooks::sqlite::{apply_in, create_endpoint_in};
    match change {
        Change::CreateEndpoint(endpoint) => match create_endpoint_in(tx, endpoint) {
            Ok(()) => Ok(Changed::Made(None)),
            Err(StoreError::TooManyEndpoints { limit }) => Ok(Changed::TooMany { limit }),
            Err(error) => Err(error.into()),
        },
        Change::CreateKey { key, limit } => api_keys::insert(tx, key, *limit),
        Change::Operate(operation) => Ok(apply_in(tx, operation)?.into()),
    }
}

impl From<tidings_sqlite::Error> for StorageError {
    fn from(error: tidings_sqlite::Error) -> Self {
        match error {
            tidings_sqlite::Error::Closed => Self::Closed,
            tidings_sqlite::Error::TooSlow => Self::TooSlow,
            full if full.is_full() => Self::Full {
                source: full.into(),
            },
            error if error.is_unavailable() => Self::unavailable(error),
            error => Self::failed(error),
        }
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        tidings_sqlite::Error::from(error).into()
    }
}

pub(super) fn of_engine(cause: &(dyn StdError + 'static)) -> Option<StorageError> {
    let error = cause.downcast_ref::<tidings_sqlite::Error>()?;
    Some(error.clone().into())
}

#[cfg(test)]
mod tests {
    use tidings_sqlite::{Database, Options};

    use super::super::conformance::{self, Handles};

    /// Two handles that share nothing but the file. Without the lock, which keeps a second server out.
    async fn open() -> (tempfile::TempDir, Handles) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        let open = async || {
            let database = Database::open(&path, &Options::default()).unwrap();
            super::open_in(database).await.unwrap()
        };
        let (first, second) = (open().await, open().await);
        (folder, Handles { first, second })
    }

    conformance::suite!(open());
}
