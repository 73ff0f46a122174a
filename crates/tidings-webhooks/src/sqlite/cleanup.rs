//! Forgetting what is old.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::schema::{limit, micros};
use crate::StoreError;

pub(super) fn run(
    tx: &Transaction<'_>,
    cutoff: Timestamp,
    most: usize,
) -> Result<usize, StoreError> {
    let old: Vec<(i64, i64)> = tx
        .prepare_cached(
            "SELECT delivery, event FROM webhook_delivery
             WHERE finished_at < ?1 ORDER BY finished_at LIMIT ?2",
        )?
        .query_map((micros(cutoff), limit(most)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut attempts = tx.prepare_cached("DELETE FROM webhook_attempt WHERE delivery = ?1")?;
    let mut deliveries = tx.prepare_cached("DELETE FROM webhook_delivery WHERE delivery = ?1")?;
    let mut events = tx.prepare_cached(
        "DELETE FROM webhook_event WHERE event = ?1
             AND NOT EXISTS (SELECT 1 FROM webhook_delivery WHERE event = ?1)",
    )?;
    for (delivery, event) in &old {
        attempts.execute([delivery])?;
        deliveries.execute([delivery])?;
        events.execute([event])?;
    }
    let bare = tx
        .prepare_cached(
            "DELETE FROM webhook_event WHERE event IN (
                 SELECT event FROM webhook_event
                 WHERE has_delivery = 0 AND accepted_at < ?1 ORDER BY accepted_at LIMIT ?2)",
        )?
        .execute((micros(cutoff), limit(most)))?;
    let removed = remove_endpoints(tx, most)?;
    Ok(old.len() + bare + removed)
}

/// Forgets endpoints that were removed and have no delivery any more.
fn remove_endpoints(tx: &Transaction<'_>, most: usize) -> Result<usize, StoreError> {
    let gone: Vec<i64> = tx
        .prepare_cached(
            "SELECT endpoint FROM webhook_endpoint WHERE removed = 1
                 AND NOT EXISTS (SELECT 1 FROM webhook_delivery
                     WHERE webhook_delivery.endpoint = webhook_endpoint.endpoint AND state = 0)
                 AND NOT EXISTS (SELECT 1 FROM webhook_delivery
                     WHERE webhook_delivery.endpoint = webhook_endpoint.endpoint AND state > 0)
             LIMIT ?1",
        )?
        .query_map([limit(most)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for endpoint in &gone {
        for table in ["webhook_health", "webhook_replay", "webhook_endpoint"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE endpoint = ?1"))?
                .execute([endpoint])?;
        }
    }
    Ok(gone.len())
}
