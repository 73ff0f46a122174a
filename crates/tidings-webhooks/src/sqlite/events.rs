//! Events, and the deliveries that they become.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Transaction;

use super::lanes;
use super::schema::micros;
use crate::store::{Added, Addressed, Notice};
use crate::{DeliveryId, EndpointId, StoreError, WebhookEvent};

pub(super) fn add_notice(tx: &Transaction<'_>, notice: Option<&Notice>) -> Result<(), StoreError> {
    match notice {
        Some(notice) => add(tx, std::slice::from_ref(&notice.addressed), notice.at).map(drop),
        None => Ok(()),
    }
}

pub(super) fn add(
    tx: &Transaction<'_>,
    events: &[Addressed],
    at: Timestamp,
) -> Result<Added, StoreError> {
    let at = micros(at);
    let mut insert = tx.prepare_cached(
        "INSERT INTO webhook_delivery (event, endpoint, state, due_at, created_at)
         VALUES (?1, ?2, 0, ?3, ?4) ON CONFLICT (event, endpoint) DO NOTHING",
    )?;
    let mut due: BTreeMap<EndpointId, Timestamp> = BTreeMap::new();
    let mut outcome = Added::default();
    for Addressed { event, to } in events {
        let (number, is_new) = number(tx, event, at, !to.is_empty())?;
        for (endpoint, due_at) in to {
            let added = insert.execute((number, endpoint.as_i64(), micros(*due_at), at))?;
            outcome.count += added;
            if added > 0 {
                let earliest = due.entry(*endpoint).or_insert(*due_at);
                *earliest = (*earliest).min(*due_at);
            }
            let is_made = added > 0 && is_new;
            let made = is_made.then(|| DeliveryId::from_i64(tx.last_insert_rowid()));
            outcome.deliveries.push(made);
        }
    }
    for (endpoint, due_at) in due {
        lanes::add_work(tx, endpoint, due_at)?;
    }
    Ok(outcome)
}

/// Stores an event unless it is stored. Returns its number, and whether it is new.
fn number(
    tx: &Transaction<'_>,
    event: &WebhookEvent,
    at: i64,
    has_delivery: bool,
) -> Result<(i64, bool), StoreError> {
    // Not with `RETURNING`: SQLite would keep a copy of every page that the statement changes.
    let added = tx
        .prepare_cached(
            "INSERT INTO webhook_event
                 (id, user, type, timestamp, payload, accepted_at, has_delivery)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
        )?
        .execute((
            &event.id,
            event.user.as_ref().map(tidings_notify::UserId::as_str),
            &event.event_type,
            micros(event.timestamp),
            event.payload.as_str(),
            at,
            has_delivery,
        ))?;
    if added > 0 {
        return Ok((tx.last_insert_rowid(), true));
    }
    let number = tx
        .prepare_cached("SELECT event FROM webhook_event WHERE id = ?1")?
        .query_row([&event.id], |row| row.get(0))?;
    if has_delivery {
        mark(tx, number)?;
    }
    Ok((number, false))
}

/// Notes that an event has a delivery, with which it goes.
pub(super) fn mark(tx: &Transaction<'_>, event: i64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE webhook_event SET has_delivery = 1 WHERE event = ?1 AND has_delivery = 0",
    )?
    .execute([event])?;
    Ok(())
}
