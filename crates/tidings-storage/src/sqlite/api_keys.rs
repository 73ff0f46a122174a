//! The table of API keys.

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_sqlite::rusqlite::{Connection, Row, Transaction};

use super::SqliteRecords;
use crate::Scopes;
use crate::api_keys::{AllKeys, ApiKeyStore, StoredKey};
use crate::{Changed, StorageError};

/// Whose table this is, in the file's list of schemas.
pub(crate) const COMPONENT: &str = "api_keys";

/// The steps of the migration. One that was released is never changed; a change is another step. Times are microseconds
/// since 1970.
pub(crate) const STEPS: &[&str] = &["
    CREATE TABLE api_key (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        prefix TEXT NOT NULL,
        scopes TEXT NOT NULL, -- separated by commas
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER
    ) STRICT, WITHOUT ROWID;
"];

#[async_trait]
impl ApiKeyStore for SqliteRecords {
    async fn all(&self) -> Result<AllKeys, StorageError> {
        self.database.read(select).await
    }

    async fn remove(&self, id: &str) -> Result<bool, StorageError> {
        let id = id.to_owned();
        let delete = move |tx: &Transaction<'_>| {
            let mut delete = tx.prepare_cached("DELETE FROM api_key WHERE id = ?1")?;
            Ok::<_, StorageError>(delete.execute([&id])? > 0)
        };
        self.database.write(delete).await
    }

    async fn remove_expired(&self, before: Timestamp) -> Result<(), StorageError> {
        let delete = move |tx: &Transaction<'_>| {
            let mut delete = tx.prepare_cached("DELETE FROM api_key WHERE expires_at < ?1")?;
            delete.execute([before.as_microsecond()])?;
            Ok::<_, StorageError>(())
        };
        self.database.write_relaxed(delete).await
    }

    async fn record_use(&self, uses: &[(String, Timestamp)]) -> Result<(), StorageError> {
        let uses = uses.to_vec();
        let update = move |tx: &Transaction<'_>| {
            let mut update = tx.prepare_cached(
                "UPDATE api_key SET last_used_at = max(coalesce(last_used_at, ?2), ?2)
                 WHERE id = ?1",
            )?;
            for (id, at) in &uses {
                update.execute((id, at.as_microsecond()))?;
            }
            Ok::<_, StorageError>(())
        };
        self.database.write_relaxed(update).await
    }
}

/// Stores a key, if there are not too many.
pub(super) fn insert(
    tx: &Transaction<'_>,
    key: &StoredKey,
    limit: u32,
) -> Result<Changed, StorageError> {
    let now = key.created_at;
    tx.prepare_cached(
        "DELETE FROM api_key WHERE id IN (
             SELECT id FROM api_key WHERE expires_at <= ?1
             ORDER BY expires_at DESC, id LIMIT -1 OFFSET ?2)",
    )?
    .execute((now.as_microsecond(), limit))?;
    let inserted = tx
        .prepare_cached(
            "INSERT INTO api_key
                 (id, name, digest, prefix, scopes, created_at, expires_at, last_used_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
             WHERE (SELECT count(*) FROM api_key WHERE expires_at IS NULL OR expires_at > ?10) < ?9",
        )?
        .execute((
            &key.id,
            &key.name,
            key.digest,
            &key.prefix,
            key.scopes.to_string(),
            key.created_at.as_microsecond(),
            key.expires_at.map(Timestamp::as_microsecond),
            key.last_used_at.map(Timestamp::as_microsecond),
            limit,
            now.as_microsecond(),
        ))?;
    Ok(if inserted > 0 {
        Changed::Made(None)
    } else {
        Changed::too_many_keys(limit)
    })
}

fn select(connection: &Connection) -> Result<AllKeys, StorageError> {
    let mut select = connection.prepare_cached(
        "SELECT id, name, digest, prefix, scopes, created_at, expires_at, last_used_at
         FROM api_key ORDER BY created_at, id",
    )?;
    let mut rows = select.query([])?;
    let mut all = AllKeys::default();
    while let Some(row) = rows.next()? {
        all.add(row.get(0)?, key(row));
    }
    Ok(all)
}

fn key(row: &Row<'_>) -> Result<StoredKey, StorageError> {
    let scopes: String = row.get(4)?;
    let optional = |column| -> Result<_, StorageError> {
        let at: Option<i64> = row.get(column)?;
        at.map(time).transpose()
    };
    Ok(StoredKey {
        id: row.get(0)?,
        name: row.get(1)?,
        digest: row.get(2)?,
        prefix: row.get(3)?,
        scopes: Scopes::parse(&scopes).ok_or_else(|| StorageError::failed("unknown scopes"))?,
        created_at: time(row.get(5)?)?,
        expires_at: optional(6)?,
        last_used_at: optional(7)?,
    })
}

fn time(microseconds: i64) -> Result<Timestamp, StorageError> {
    Timestamp::from_microsecond(microseconds).map_err(StorageError::failed)
}
