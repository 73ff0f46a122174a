use std::collections::BTreeSet;

use tidings_notify::UserId;
use tidings_postgres::Error;
use tidings_postgres::tokio_postgres::GenericClient;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_stream::StreamName;

use super::schema::column;
use crate::{StoreError, WebhookEvent, fan_out};

const INTEREST: &str = "SELECT newest, everyone, users FROM tidings_webhook_interest($1)";

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
    let interest = interest_in(client, users).await?;
    hand_over_in(client, stream, &interest, events).await
}

/// Whose events an endpoint may want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Endpoints that are made later have higher numbers, and do not get the events.
    newest_endpoint: u64,
    /// The operator has an endpoint, which may want every event.
    everyone: bool,
    users: BTreeSet<String>,
}

impl Interest {
    /// Whether an endpoint may want an event of this user, or one that belongs to no user.
    pub fn includes(&self, user: Option<&UserId>) -> bool {
        self.everyone || user.is_some_and(|user| self.users.contains(user.as_str()))
    }
}

/// Finds out whose events an endpoint may want. With [`hand_over_in`] this is [`accept_in`] in two steps,
/// for a caller that sends the first along with other statements.
///
/// # Errors
///
/// [`StoreError`] when the server refuses.
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
pub async fn interest_in<'a>(
    client: &(impl GenericClient + Sync),
    users: impl IntoIterator<Item = &'a UserId>,
) -> Result<Interest, StoreError> {
    let users: BTreeSet<&str> = users.into_iter().map(UserId::as_str).collect();
    let users: Vec<&str> = users.into_iter().collect();
    let row = client
        .query_typed(INTEREST, &[(&users, Type::TEXT_ARRAY)])
        .await
        .map_err(Error::of_statement)?
        .pop();
    let row = row.ok_or_else(|| StoreError::backend("the database returned no row"))?;
    let newest: Option<i64> = row.try_get(0).map_err(column)?;
    let users: Vec<String> = row.try_get(2).map_err(column)?;
    Ok(Interest {
        newest_endpoint: newest.unwrap_or_default().unsigned_abs(),
        everyone: row.try_get(1).map_err(column)?,
        users: users.into_iter().collect(),
    })
}

/// Hands those events to the fan-out, within the caller's own transaction, that the interest
/// [includes](Interest::includes). Returns whether there was one; otherwise nothing is written.
///
/// # Errors
///
/// [`StoreError`] when the server refuses. Roll back then.
///
/// # Cancel safety
///
/// A dropped future may have left the events in the transaction; roll back then.
pub async fn hand_over_in(
    client: &(impl GenericClient + Sync),
    stream: &StreamName,
    interest: &Interest,
    events: &[WebhookEvent],
) -> Result<bool, StoreError> {
    let wanted = events
        .iter()
        .filter(|event| interest.includes(event.user()));
    let wanted: Vec<_> = wanted.cloned().collect();
    if wanted.is_empty() {
        return Ok(false);
    }
    let messages =
        fan_out::message::write(&wanted, interest.newest_endpoint).map_err(StoreError::backend)?;
    tidings_stream::postgres::publish_in(client, stream, &messages)
        .await
        .map_err(fan_out::stream_failure)?;
    Ok(true)
}
