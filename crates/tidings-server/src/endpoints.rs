//! Webhook endpoints: where events are posted, to whom they belong, and what they want to hear of.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use tidings::signing::Secret;
use tidings_notify::{EventType, UserId};
use uuid::Uuid;

pub(crate) const SCHEMA: &[&str] = &["
    CREATE TABLE endpoint (
        id TEXT PRIMARY KEY,
        user TEXT,                  -- NULL: the operator's, which gets every user's events
        url TEXT NOT NULL,
        event_types TEXT NOT NULL,  -- a JSON array; empty: every type
        secret TEXT NOT NULL,
        disabled_because TEXT,      -- NULL: enabled
        created_at INTEGER NOT NULL -- microseconds since 1970
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX endpoint_user ON endpoint (user);
"];

/// Who an endpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The operator: every user's events are posted.
    Operator,
    /// One user: only that user's events are posted.
    User(UserId),
}

impl Owner {
    fn as_column(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::User(user) => Some(user.as_str()),
        }
    }
}

/// A webhook destination, as stored.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) user_id: Option<String>,
    pub(crate) url: String,
    /// Empty means every type.
    pub(crate) event_types: Vec<EventType>,
    /// Shown when the endpoint is created, and never again.
    pub(crate) secret: Secret,
    pub(crate) disabled_because: Option<String>,
    pub(crate) created_at: Timestamp,
}

impl Endpoint {
    pub(crate) fn new(
        owner: &Owner,
        url: String,
        event_types: Vec<EventType>,
        secret: Secret,
    ) -> Self {
        Self {
            id: format!("ep_{}", Uuid::now_v7().simple()),
            user_id: owner.as_column().map(str::to_owned),
            url,
            event_types,
            secret,
            disabled_because: None,
            created_at: now(),
        }
    }

    pub(crate) fn wants(&self, event_type: &EventType) -> bool {
        self.event_types.is_empty() || self.event_types.contains(event_type)
    }
}

/// The present to the microsecond, which is what the table keeps.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

pub(crate) fn insert(tx: &Transaction<'_>, endpoint: &Endpoint) -> rusqlite::Result<()> {
    let event_types = serde_json::to_string(&endpoint.event_types)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached(
        "INSERT INTO endpoint (id, user, url, event_types, secret, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        &endpoint.id,
        &endpoint.user_id,
        &endpoint.url,
        event_types,
        endpoint.secret.expose().as_str(),
        endpoint.created_at.as_microsecond(),
    ))?;
    Ok(())
}

const COLUMNS: &str = "id, user, url, event_types, secret, disabled_because, created_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    Ok(Endpoint {
        id: row.get(0)?,
        user_id: row.get(1)?,
        url: row.get(2)?,
        event_types: serde_json::from_str(row.get_ref(3)?.as_str()?)
            .map_err(|error| unreadable(3, error.into()))?,
        secret: Secret::parse(row.get_ref(4)?.as_str()?)
            .map_err(|error| unreadable(4, error.into()))?,
        disabled_because: row.get(5)?,
        created_at: Timestamp::from_microsecond(row.get(6)?)
            .map_err(|error| unreadable(6, error.into()))?,
    })
}

/// The enabled endpoints that hear of a user's events, whatever the type.
pub(crate) fn of_events(connection: &Connection, user: &UserId) -> rusqlite::Result<Vec<Endpoint>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM endpoint
             WHERE (user = ?1 OR user IS NULL) AND disabled_because IS NULL"
        ))?
        .query_map([user.as_str()], from_row)?
        .collect()
}

/// The endpoints of one owner, oldest first.
pub(crate) fn list(connection: &Connection, owner: &Owner) -> rusqlite::Result<Vec<Endpoint>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM endpoint WHERE user IS ?1 ORDER BY id"
        ))?
        .query_map([owner.as_column()], from_row)?
        .collect()
}

pub(crate) fn count(connection: &Connection, owner: &Owner) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("SELECT count(*) FROM endpoint WHERE user IS ?1")?
        .query_row([owner.as_column()], |row| row.get::<_, u32>(0))
        .map(|count| count as usize)
}

pub(crate) fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<Endpoint>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM endpoint WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()
}

/// Removes an endpoint of this owner; answers whether there was one.
pub(crate) fn remove(tx: &Transaction<'_>, owner: &Owner, id: &str) -> rusqlite::Result<bool> {
    tx.prepare_cached("DELETE FROM endpoint WHERE id = ?1 AND user IS ?2")?
        .execute((id, owner.as_column()))
        .map(|removed| removed > 0)
}

/// Stops posting to an endpoint, and remembers why.
pub(crate) fn disable(tx: &Transaction<'_>, id: &str, because: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE endpoint SET disabled_because = ?2 WHERE id = ?1 AND disabled_because IS NULL",
    )?
    .execute((id, because))?;
    Ok(())
}
