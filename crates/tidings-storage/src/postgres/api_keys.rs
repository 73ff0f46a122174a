//! The table of API keys.

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_postgres::Parameter;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{Client, Row};

use super::{PostgresRecords, failure};
use crate::Scopes;
use crate::api_keys::{AllKeys, ApiKeyStore, StoredKey};
use crate::{Changed, StorageError};

/// Two calls at the same time may pass the limit by one: the limit bounds memory, and need not be exact.
const CREATE: &str = "
    WITH forgotten AS (
        DELETE FROM tidings_server_api_key WHERE id IN (
            SELECT id FROM tidings_server_api_key WHERE expires_at <= $6
            ORDER BY expires_at DESC, id OFFSET $9))
    INSERT INTO tidings_server_api_key
        (id, name, digest, prefix, scopes, created_at, expires_at, last_used_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8
    WHERE (SELECT count(*) FROM tidings_server_api_key
        WHERE expires_at IS NULL OR expires_at > $6) < $9";

const ALL: &str = "
    SELECT id, name, digest, prefix, scopes, created_at, expires_at, last_used_at
    FROM tidings_server_api_key ORDER BY created_at, id";

const REMOVE: &str = "DELETE FROM tidings_server_api_key WHERE id = $1";

const REMOVE_EXPIRED: &str = "DELETE FROM tidings_server_api_key WHERE expires_at < $1";

/// Rows are locked in the order of their ids, so that two instances do not wait for each other.
const RECORD_USE: &str = "
    WITH locked AS MATERIALIZED (
        SELECT key.id, used.at FROM tidings_server_api_key AS key
        JOIN unnest($1::text[], $2::bigint[]) AS used (id, at) ON key.id = used.id
        ORDER BY key.id FOR UPDATE OF key)
    UPDATE tidings_server_api_key AS key SET last_used_at = greatest(key.last_used_at, locked.at)
    FROM locked WHERE key.id = locked.id";

#[async_trait]
impl ApiKeyStore for PostgresRecords {
    async fn all(&self) -> Result<AllKeys, StorageError> {
        let rows = self.statement(|client| async move { client.query_typed(ALL, &[]).await });
        let mut all = AllKeys::default();
        for row in &rows.await? {
            all.add(row.try_get(0).map_err(StorageError::failed)?, key(row));
        }
        Ok(all)
    }

    async fn remove(&self, id: &str) -> Result<bool, StorageError> {
        let parameters: [Parameter<'_>; 1] = [(&id, Type::TEXT)];
        let remove =
            self.write(|client| async move { client.execute_typed(REMOVE, &parameters).await });
        Ok(remove.await? > 0)
    }

    async fn remove_expired(&self, before: Timestamp) -> Result<(), StorageError> {
        let before = before.as_microsecond();
        let parameters: [Parameter<'_>; 1] = [(&before, Type::INT8)];
        let remove = self.statement(|client| async move {
            client.execute_typed(REMOVE_EXPIRED, &parameters).await
        });
        remove.await.map(drop)
    }

    async fn record_use(&self, uses: &[(String, Timestamp)]) -> Result<(), StorageError> {
        let (ids, times): (Vec<&str>, Vec<i64>) = uses
            .iter()
            .map(|(id, at)| (id.as_str(), at.as_microsecond()))
            .unzip();
        let parameters: [Parameter<'_>; 2] = [(&ids, Type::TEXT_ARRAY), (&times, Type::INT8_ARRAY)];
        let record = self
            .statement(|client| async move { client.execute_typed(RECORD_USE, &parameters).await });
        record.await.map(drop)
    }
}

/// Stores a key within a transaction, if there are not too many.
pub(super) async fn insert(
    client: &Client,
    key: &StoredKey,
    limit: u32,
) -> Result<Changed, StorageError> {
    let scopes = key.scopes.to_string();
    let created_at = key.created_at.as_microsecond();
    let expires_at = key.expires_at.map(Timestamp::as_microsecond);
    let last_used_at = key.last_used_at.map(Timestamp::as_microsecond);
    let (digest, most) = (key.digest.as_slice(), i64::from(limit));
    let parameters: [Parameter<'_>; 9] = [
        (&key.id, Type::TEXT),
        (&key.name, Type::TEXT),
        (&digest, Type::BYTEA),
        (&key.prefix, Type::TEXT),
        (&scopes, Type::TEXT),
        (&created_at, Type::INT8),
        (&expires_at, Type::INT8),
        (&last_used_at, Type::INT8),
        (&most, Type::INT8),
    ];
    let inserted = client.execute_typed(CREATE, &parameters).await;
    Ok(if inserted.map_err(failure)? > 0 {
        Changed::Made(None)
    } else {
        Changed::too_many_keys(limit)
    })
}

fn key(row: &Row) -> Result<StoredKey, StorageError> {
    let scopes: &str = row.try_get(4).map_err(StorageError::failed)?;
    let digest: &[u8] = row.try_get(2).map_err(StorageError::failed)?;
    let text = |column: usize| row.try_get(column).map_err(StorageError::failed);
    let optional = |column: usize| -> Result<_, StorageError> {
        let at: Option<i64> = row.try_get(column).map_err(StorageError::failed)?;
        at.map(time).transpose()
    };
    Ok(StoredKey {
        id: text(0)?,
        name: text(1)?,
        digest: digest.try_into().map_err(StorageError::failed)?,
        prefix: text(3)?,
        scopes: Scopes::parse(scopes).ok_or_else(|| StorageError::failed("unknown scopes"))?,
        created_at: time(row.try_get(5).map_err(StorageError::failed)?)?,
        expires_at: optional(6)?,
        last_used_at: optional(7)?,
    })
}

fn time(microseconds: i64) -> Result<Timestamp, StorageError> {
    Timestamp::from_microsecond(microseconds).map_err(StorageError::failed)
}
