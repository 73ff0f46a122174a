//! Operations within the caller's own transaction.

use rusqlite::{OptionalExtension, Transaction};

use super::{deliveries, endpoints, events, replay};
use crate::webhooks::operation::Kind;
use crate::{DeliveryId, EndpointId, Operation, OperationOutcome, StoreError};

/// Does an operation within the caller's own transaction. Call
/// [`Webhooks::announce_operation`](crate::Webhooks::announce_operation) after the commit.
///
/// # Errors
///
/// [`StoreError`]; the transaction must be rolled back then.
pub fn apply_in(
    tx: &Transaction<'_>,
    operation: &Operation,
) -> Result<OperationOutcome, StoreError> {
    match &operation.kind {
        Kind::Rotate { new, now, notice } => {
            if !endpoints::replace(tx, new, *now)? {
                return Ok(OperationOutcome::Contended);
            }
            events::add_notice(tx, notice.as_ref())?;
            Ok(operation.done(None))
        }
        Kind::Test {
            endpoint,
            event,
            at,
        } => {
            events::add(tx, std::slice::from_ref(event), *at)?;
            let id = delivery_of(tx, &event.event.id, *endpoint)?;
            Ok(operation.done(deliveries::find(tx, id)?))
        }
        Kind::Replay { replay, now } => Ok(if replay::start(tx, replay, *now)? {
            operation.done(None)
        } else {
            OperationOutcome::Refused
        }),
        Kind::Retry { delivery, now } => Ok(match deliveries::retry(tx, *delivery, *now)? {
            Some(_endpoint) => operation.done(deliveries::find(tx, *delivery)?),
            None => OperationOutcome::Refused,
        }),
    }
}

fn delivery_of(
    tx: &Transaction<'_>,
    event: &str,
    endpoint: EndpointId,
) -> Result<DeliveryId, StoreError> {
    let id = tx
        .prepare_cached(
            "SELECT delivery FROM webhook_delivery WHERE endpoint = ?2
                 AND event = (SELECT event FROM webhook_event WHERE id = ?1)",
        )?
        .query_row((event, endpoint.as_i64()), |row| row.get(0))
        .optional()?;
    let id = id.ok_or_else(|| StoreError::backend("a delivery that was added is missing"))?;
    Ok(DeliveryId::from_i64(id))
}
