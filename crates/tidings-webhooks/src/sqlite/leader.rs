//! Which instance makes deliveries of accepted events.

use rusqlite::{Connection, Transaction};

use super::schema::micros;
use crate::StoreError;
use crate::store::LeadRequest;

/// Whether no other instance leads.
pub(super) fn is_free(connection: &Connection, lead: &LeadRequest) -> Result<bool, StoreError> {
    let is_free = connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM webhook_leader WHERE instance <> ?1 AND until > ?2)",
        )?
        .query_row((&lead.instance, micros(lead.now)), |row| row.get(0))?;
    Ok(is_free)
}

pub(super) fn lead(tx: &Transaction<'_>, lead: &LeadRequest) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "INSERT INTO webhook_leader (one, instance, until) VALUES (1, ?1, ?3)
             ON CONFLICT (one) DO UPDATE SET instance = excluded.instance, until = excluded.until
             WHERE webhook_leader.instance = ?1 OR webhook_leader.until <= ?2",
        )?
        .execute((&lead.instance, micros(lead.now), micros(lead.until)))?;
    Ok(changed > 0)
}

pub(super) fn resign(tx: &Transaction<'_>, instance: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM webhook_leader WHERE instance = ?1")?
        .execute([instance])?;
    Ok(())
}
