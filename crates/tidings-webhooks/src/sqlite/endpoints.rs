//! Endpoints: added, changed, found.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use tidings_notify::UserId;

use super::schema::{duration_micros, limit, micros, time};
use super::{events, lanes, replay};
use crate::columns::{first_wait, owner};
use crate::store::{Disabled, Listener, StoredEndpoint, StoredSecrets};
use crate::{EndpointId, Owner, PreparedEndpoint, StoreError};

const COLUMNS: &str = "endpoint, user, settings, event_types, secrets, first_wait,
    disabled_because, removed, revision, created_at";

/// Stores an endpoint within the caller's own transaction. Call
/// [`Webhooks::announce_endpoint`](crate::Webhooks::announce_endpoint) after the commit.
///
/// # Errors
///
/// [`StoreError::TooManyEndpoints`] when its owner has as many as allowed; nothing is written then.
pub fn create_endpoint_in(
    tx: &Transaction<'_>,
    prepared: &PreparedEndpoint,
) -> Result<(), StoreError> {
    insert(tx, &prepared.stored, prepared.limit)?;
    events::add_notice(tx, prepared.notice.as_ref())
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    endpoint: &StoredEndpoint,
    limit: Option<usize>,
) -> Result<(), StoreError> {
    let user = endpoint.owner.user().map(UserId::as_str);
    if let Some(limit) = limit {
        let count: i64 = tx
            .prepare_cached(
                "SELECT count(*) FROM webhook_endpoint WHERE user IS ?1 AND removed = 0",
            )?
            .query_row([user], |row| row.get(0))?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= limit {
            return Err(StoreError::TooManyEndpoints { limit });
        }
    }
    tx.prepare_cached("UPDATE webhook_newest_endpoint SET number = number + 1")?
        .execute([])?;
    tx.prepare_cached(&format!(
        "INSERT INTO webhook_endpoint ({COLUMNS}, number)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
             (SELECT number FROM webhook_newest_endpoint))"
    ))?
    .execute((
        endpoint.id.as_i64(),
        user,
        &endpoint.settings,
        &endpoint.event_types,
        &endpoint.secrets,
        endpoint.first_wait.map(duration_micros),
        endpoint.disabled.as_ref().map(|it| &it.because),
        endpoint.removed,
        endpoint.revision.cast_signed(),
        micros(endpoint.created_at),
    ))?;
    Ok(())
}

pub(super) fn replace(
    tx: &Transaction<'_>,
    endpoint: &StoredEndpoint,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE webhook_endpoint SET settings = ?3, event_types = ?4, secrets = ?5,
                 first_wait = ?6, disabled_because = ?7, removed = ?8, revision = revision + 1
             WHERE endpoint = ?1 AND revision = ?2 AND removed = 0",
        )?
        .execute((
            endpoint.id.as_i64(),
            endpoint.revision.cast_signed(),
            &endpoint.settings,
            &endpoint.event_types,
            &endpoint.secrets,
            endpoint.first_wait.map(duration_micros),
            endpoint.disabled.as_ref().map(|it| &it.because),
            endpoint.removed,
        ))?;
    if changed == 0 {
        return Ok(false);
    }
    // Whatever blocks it: its deliveries are to be cancelled, or may succeed now.
    lanes::hasten(tx, endpoint.id, now)?;
    if endpoint.disabled.is_none() && !endpoint.removed {
        // What it failed for may be mended: the time in which it has to succeed begins anew.
        tx.prepare_cached("UPDATE webhook_health SET failing_since = NULL WHERE endpoint = ?1")?
            .execute([endpoint.id.as_i64()])?;
    } else {
        replay::stop(tx, endpoint.id)?;
    }
    Ok(true)
}

/// Finds an endpoint, a removed one too.
pub(super) fn find(
    connection: &Connection,
    id: EndpointId,
) -> Result<Option<StoredEndpoint>, StoreError> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM webhook_endpoint WHERE endpoint = ?1"
        ))?
        .query_row([id.as_i64()], |row| Ok(from_row(row)))
        .optional()?
        .transpose()
}

pub(super) fn list(
    connection: &Connection,
    owner: &Owner,
) -> Result<Vec<StoredEndpoint>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM webhook_endpoint
         WHERE user IS ?1 AND removed = 0 ORDER BY created_at, endpoint"
    ))?;
    let mut rows = statement.query([owner.user().map(UserId::as_str)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

/// Ids are positive numbers.
pub(super) fn secrets(
    connection: &Connection,
    after: Option<EndpointId>,
    most: usize,
) -> Result<Vec<StoredSecrets>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT endpoint, revision, secrets FROM webhook_endpoint
         WHERE endpoint > ?1 ORDER BY endpoint LIMIT ?2",
    )?;
    let mut rows = statement.query((after.map_or(-1, EndpointId::as_i64), limit(most)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(StoredSecrets {
            endpoint: EndpointId::from_i64(row.get(0)?),
            revision: row.get::<_, i64>(1)?.cast_unsigned(),
            secrets: row.get(2)?,
        });
    }
    Ok(found)
}

/// Within this, what is replaced is overwritten in the file too.
pub(super) fn replace_secrets(
    tx: &Transaction<'_>,
    secrets: &[StoredSecrets],
) -> Result<(), StoreError> {
    tx.pragma_update(None, "secure_delete", true)?;
    let replaced = secrets.iter().try_for_each(|new| {
        tx.prepare_cached(
            "UPDATE webhook_endpoint SET secrets = ?3, revision = revision + 1
             WHERE endpoint = ?1 AND revision = ?2",
        )?
        .execute((
            new.endpoint.as_i64(),
            new.revision.cast_signed(),
            &new.secrets,
        ))?;
        Ok(())
    });
    tx.pragma_update(None, "secure_delete", false)?;
    replaced
}

/// The number of the newest endpoint, if the operator or one of these users has one.
pub(super) fn newest_if_wanted<'a>(
    connection: &Connection,
    users: impl Iterator<Item = &'a UserId>,
) -> Result<Option<u64>, StoreError> {
    if !is_wanted(connection, users)? {
        return Ok(None);
    }
    let number: i64 = connection
        .prepare_cached("SELECT number FROM webhook_newest_endpoint")?
        .query_row([], |row| row.get(0))?;
    Ok(Some(number.unsigned_abs()))
}

fn is_wanted<'a>(
    connection: &Connection,
    users: impl Iterator<Item = &'a UserId>,
) -> Result<bool, StoreError> {
    let mut exists = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM webhook_endpoint WHERE user IS ?1 AND removed = 0)",
    )?;
    let mut has = |user: Option<&str>| exists.query_row([user], |row| row.get::<_, bool>(0));
    if has(None)? {
        return Ok(true);
    }
    // Most often no user has one: one query is enough then.
    let any = "SELECT EXISTS (SELECT 1 FROM webhook_endpoint
        WHERE user IS NOT NULL AND removed = 0)";
    if !connection
        .prepare_cached(any)?
        .query_row([], |row| row.get::<_, bool>(0))?
    {
        return Ok(false);
    }
    let users: BTreeSet<&str> = users.map(UserId::as_str).collect();
    for user in users {
        if has(Some(user))? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn listeners(
    connection: &Connection,
    users: &[UserId],
) -> Result<Vec<Listener>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT endpoint, user, event_types, first_wait, disabled_because IS NULL, number
         FROM webhook_endpoint WHERE user IS ?1 AND removed = 0 ORDER BY created_at, endpoint",
    )?;
    let users: BTreeSet<&str> = users.iter().map(UserId::as_str).collect();
    let mut found = Vec::new();
    for user in std::iter::once(None).chain(users.into_iter().map(Some)) {
        let mut rows = statement.query([user])?;
        while let Some(row) = rows.next()? {
            found.push(Listener {
                id: EndpointId::from_i64(row.get(0)?),
                owner: owner(row.get(1)?)?,
                event_types: row.get(2)?,
                first_wait: first_wait(row.get(3)?),
                enabled: row.get(4)?,
                number: row.get::<_, i64>(5)?.unsigned_abs(),
            });
        }
    }
    Ok(found)
}

fn from_row(row: &Row<'_>) -> Result<StoredEndpoint, StoreError> {
    Ok(StoredEndpoint {
        id: EndpointId::from_i64(row.get(0)?),
        owner: owner(row.get(1)?)?,
        settings: row.get(2)?,
        event_types: row.get(3)?,
        secrets: row.get(4)?,
        first_wait: first_wait(row.get(5)?),
        disabled: row
            .get::<_, Option<String>>(6)?
            .map(|because| Disabled { because }),
        removed: row.get(7)?,
        revision: row.get::<_, i64>(8)?.cast_unsigned(),
        created_at: time(row.get(9)?)?,
    })
}
