//! Events whose deliveries are made later.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use tidings_notify::UserId;

use super::events;
use super::schema::limit;
use crate::store::{AcceptedEvent, Addressed, DeferredEvent};
use crate::{StoreError, WebhookEvent};

pub(super) fn defer(tx: &Transaction<'_>, accepted: &[AcceptedEvent]) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO webhook_deferred (id, user, newest_endpoint, event)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
    )?;
    for AcceptedEvent {
        event,
        newest_endpoint,
    } in accepted
    {
        insert.execute((
            &event.id,
            event.user.as_ref().map(UserId::as_str),
            newest_endpoint.cast_signed(),
            serde_json::to_string(event).map_err(StoreError::backend)?,
        ))?;
    }
    Ok(())
}

/// Which of these users have deferred events; `None` are the events of no user.
pub(super) fn users(
    connection: &Connection,
    among: &[UserId],
) -> Result<HashSet<Option<UserId>>, StoreError> {
    let mut found = HashSet::new();
    // Most of the time nothing is deferred.
    let any = "SELECT EXISTS (SELECT 1 FROM webhook_deferred)";
    if !connection
        .prepare_cached(any)?
        .query_row([], |row| row.get::<_, bool>(0))?
    {
        return Ok(found);
    }
    let mut exists =
        connection.prepare_cached("SELECT 1 FROM webhook_deferred WHERE user IS ?1")?;
    for user in std::iter::once(None).chain(among.iter().map(Some)) {
        if exists.exists([user.map(UserId::as_str)])? {
            found.insert(user.cloned());
        }
    }
    Ok(found)
}

pub(super) fn first(
    connection: &Connection,
    most: usize,
    max_bytes: usize,
) -> Result<Vec<DeferredEvent>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, newest_endpoint, event FROM webhook_deferred ORDER BY number LIMIT ?1",
    )?;
    let mut rows = statement.query([limit(most)])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let json = row.get_ref(2)?.as_str().map_err(StoreError::backend)?;
        bytes += json.len();
        if !found.is_empty() && bytes > max_bytes {
            break;
        }
        let newest_endpoint: i64 = row.get(1)?;
        let accepted = |event: WebhookEvent| AcceptedEvent {
            event,
            newest_endpoint: newest_endpoint.unsigned_abs(),
        };
        found.push(DeferredEvent {
            number: row.get(0)?,
            event: serde_json::from_str(json)
                .map(accepted)
                .map_err(|error| error.to_string()),
        });
    }
    Ok(found)
}

pub(super) fn add(
    tx: &Transaction<'_>,
    step: Vec<(i64, Option<Addressed>)>,
    at: Timestamp,
) -> Result<Option<usize>, StoreError> {
    let mut exists = tx.prepare_cached("SELECT 1 FROM webhook_deferred WHERE number = ?1")?;
    for (number, _) in &step {
        if !exists.exists([number])? {
            return Ok(None);
        }
    }
    let mut delete = tx.prepare_cached("DELETE FROM webhook_deferred WHERE number = ?1")?;
    let mut addressed = Vec::with_capacity(step.len());
    for (number, event) in step {
        delete.execute([number])?;
        addressed.extend(event);
    }
    Ok(Some(events::add(tx, &addressed, at)?.count))
}
