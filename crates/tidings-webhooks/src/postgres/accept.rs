use tidings_notify::UserId;
use tidings_postgres::tokio_postgres::GenericClient;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_stream::StreamName;

use super::endpoints::{NEWEST_IF_WANTED, newest};
use crate::{StoreError, WebhookEvent, fan_out};

/// Accepts events within the caller's own transaction: they reach their endpoints if it commits, and
/// never if it does not. Returns whether an endpoint may want one of them; if none can, nothing is
/// written.
///
/// Call [`Webhooks::wake`](crate::Webhooks::wake) after the commit; without it the events are found
/// at the next poll. The client, or transaction, must find the tables of a
/// [`PostgresStore`](super::PostgresStore) and of a
/// [`PostgresEngine`](tidings_stream::postgres::PostgresEngine) in its search path.
///
/// # Errors
///
/// [`StoreError`] when the server refuses. Roll back then.
///
/// # Cancel safety
///
/// A dropped future may have left the events in the transaction; roll back then, too.
pub async fn accept_in(
    client: &(impl GenericClient + Sync),
    stream: &StreamName,
    events: &[WebhookEvent],
) -> Result<bool, StoreError> {
    if events.is_empty() {
        return Ok(false);
    }
    let users = events.iter().filter_map(WebhookEvent::user);
    let users: Vec<&str> = users.map(UserId::as_str).collect();
    let rows = client
        .query_typed(NEWEST_IF_WANTED, &[(&users, Type::TEXT_ARRAY)])
        .await
        .map_err(StoreError::backend)?;
    let Some(newest_endpoint) = newest(rows.first())? else {
        return Ok(false);
    };
    let messages = fan_out::message::write(events, newest_endpoint).map_err(StoreError::backend)?;
    tidings_stream::postgres::publish_in(client, stream, &messages)
        .await
        .map_err(fan_out::stream_failure)?;
    Ok(true)
}
