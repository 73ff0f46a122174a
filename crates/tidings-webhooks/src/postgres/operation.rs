//! Operations within the caller's own transaction.

use tidings_postgres::tokio_postgres::GenericClient;
use tidings_postgres::tokio_postgres::types::Type;

use super::schema::column;
use super::statements::{InTransaction, Statements};
use super::{deliveries, endpoints, events, replay};
use crate::webhooks::operation::Kind;
use crate::{DeliveryId, EndpointId, Operation, OperationOutcome, StoreError};

/// Does an operation within the caller's own transaction. Call
/// [`Webhooks::announce_operation`](crate::Webhooks::announce_operation) after the commit.
///
/// # Errors
///
/// [`StoreError`]; the transaction has ended then.
///
/// # Cancel safety
///
/// A dropped future may have left the operation in the transaction; roll back then.
pub async fn apply_in(
    client: &(impl GenericClient + Sync),
    operation: &Operation,
) -> Result<OperationOutcome, StoreError> {
    let tx = &InTransaction(client);
    match &operation.kind {
        Kind::Rotate { new, now, notice } => {
            let is_replaced = endpoints::replace(tx, new, *now, notice.as_ref()).await?;
            Ok(if is_replaced {
                operation.done(None)
            } else {
                OperationOutcome::Contended
            })
        }
        Kind::Test {
            endpoint,
            event,
            at,
        } => {
            events::add(tx, std::slice::from_ref(event), *at).await?;
            let id = delivery_of(tx, &event.event.id, *endpoint).await?;
            Ok(operation.done(deliveries::find(tx, id).await?))
        }
        Kind::Replay { replay, now } => Ok(if replay::start(tx, replay, *now).await? {
            operation.done(None)
        } else {
            OperationOutcome::Refused
        }),
        Kind::Retry { delivery, now } => Ok(match deliveries::retry(tx, *delivery, *now).await? {
            Some(_endpoint) => operation.done(deliveries::find(tx, *delivery).await?),
            None => OperationOutcome::Refused,
        }),
    }
}

async fn delivery_of(
    tx: &impl Statements,
    event: &str,
    endpoint: EndpointId,
) -> Result<DeliveryId, StoreError> {
    let statement = "
        SELECT delivery FROM tidings_webhook_delivery WHERE endpoint = $2
            AND event = (SELECT event FROM tidings_webhook_event WHERE id = $1)";
    let parameters = [
        (&event as _, Type::TEXT),
        (&endpoint.as_i64() as _, Type::INT8),
    ];
    let row = tx.row(statement, &parameters).await?;
    Ok(DeliveryId::from_i64(row.try_get(0).map_err(column)?))
}
