//! Appending: the statement, and what is appended in a transaction of the caller's own.

use std::collections::HashSet;

use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{GenericClient, Row};
use tidings_postgres::{Connections, Parameter};

use super::log::get;
use super::schema::{epoch, epoch_column, number};
use crate::{Draft, Epoch, Event, EventId, EventKey, StoreError, UserId};

const APPEND_IN: &str = "SELECT places, epochs, seqs
    FROM tidings_notify_append_calls($1, $2, $3, $4, $5, $6, $7, false)";

const APPEND_BATCH: &str = "SELECT places, epochs, seqs, held, untried, taken
    FROM tidings_notify_append_calls($1, $2, $3, $4, $5, $6, $7, true)";

const TYPES: [Type; 7] = [
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
];

/// Appends drafts within the caller's own transaction, so that they are stored together with
/// everything else it writes, or not at all.
///
/// Returns one event for each draft, in the same order. **After** the commit, and not before it, pass
/// them to [`Notifier::announce`](crate::Notifier::announce) and their users to
/// [`PostgresStore::wake`](super::PostgresStore::wake); what is not announced is found by sweeps.
///
/// The logs of the users are locked until the transaction ends, in the order of the users, and nothing
/// else is: appends to other users' logs do not wait. So call it once in a transaction, and late;
/// two calls of one transaction may wait for two of another in the other order, which the server ends
/// with an error. The transaction must have the isolation level `READ COMMITTED`, and must find the
/// tables of a [`PostgresStore`](super::PostgresStore) in its search path.
///
/// # Errors
///
/// [`StoreError`] when the server refuses. The transaction cannot continue then.
///
/// # Cancel safety
///
/// A dropped future may have left the events in the transaction; roll back then.
pub async fn append_in(
    client: &(impl GenericClient + Sync),
    drafts: &[Draft],
) -> Result<Vec<Event>, StoreError> {
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of([drafts]);
    let rows = client
        .query_typed(APPEND_IN, &columns.parameters())
        .await
        .map_err(tidings_postgres::Error::of_statement)?;
    let drafts: Vec<&Draft> = drafts.iter().collect();
    let events = events(&drafts, &rows)?;
    // All of them, because it waits for locks.
    events.into_iter().collect::<Option<_>>().ok_or(TOO_FEW)
}

/// What became of one call of [`append_calls_in`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing of a call may have been appended"]
pub enum CallOutcome {
    /// Its events, one for each draft and in the same order.
    Appended(Vec<Event>),
    /// Nothing was appended: another transaction has locked the log of one of its users.
    Locked,
    /// Nothing was appended: another transaction is creating the logs of these of its users. Each attempt
    /// waits for a moment to find that out again, so make a pause before the next one, and do not call for these users
    /// meanwhile.
    BeingCreated(Vec<UserId>),
    /// Nothing was appended: so many logs were being created that no time was left for those of this call.
    Untried,
}

/// Appends the drafts of several calls within the caller's own transaction, each call as a whole or not
/// at all. Returns what became of each call. Try those of which nothing was appended again in another
/// transaction.
///
/// This is how many callers share one transaction without waiting for each other's users. Otherwise it
/// is as [`append_in`], except that it waits for no log that another transaction has locked, and some 20 milliseconds
/// at most in all for those that others are creating.
///
/// # Errors
///
/// [`StoreError`] when the server refuses. The transaction cannot continue then.
///
/// # Cancel safety
///
/// A dropped future may have left the events in the transaction; roll back then.
pub async fn append_calls_in(
    client: &(impl GenericClient + Sync),
    calls: &[&[Draft]],
) -> Result<Vec<CallOutcome>, StoreError> {
    let columns = Columns::of(calls.iter().copied());
    let rows = client
        .query_typed(APPEND_BATCH, &columns.parameters())
        .await
        .map_err(tidings_postgres::Error::of_statement)?;
    outcomes(calls, &rows)
}

const TOO_FEW: StoreError = StoreError::ContractBroken {
    rule: "append returns one event for each draft",
};

/// Appends the drafts of several calls in one transaction, and returns what became of each call, and the users
/// whose logs other transactions have locked.
pub(super) async fn batch(
    connections: &Connections,
    calls: &[&[Draft]],
) -> Result<(Vec<CallOutcome>, HashSet<UserId>), BatchError> {
    let columns = Columns::of(calls.iter().copied());
    let rows = connections
        .query(APPEND_BATCH, &columns.parameters())
        .await
        .map_err(BatchError::Failed)?;
    let read = || {
        let outcomes = outcomes(calls, &rows)?;
        let taken = names(rows.first().ok_or(TOO_FEW)?, 5)?;
        let users = calls.iter().copied().flatten().map(Draft::user);
        let taken = users.filter(|user| taken.contains(user.as_str()));
        Ok((outcomes, taken.cloned().collect()))
    };
    read().map_err(BatchError::Unreadable)
}

fn outcomes(calls: &[&[Draft]], rows: &[Row]) -> Result<Vec<CallOutcome>, StoreError> {
    let row = rows.first().ok_or(TOO_FEW)?;
    let [held, untried]: [HashSet<&str>; 2] = [names(row, 3)?, names(row, 4)?];
    let drafts: Vec<&Draft> = calls.iter().copied().flatten().collect();
    let mut events = events(&drafts, rows)?.into_iter();
    let outcome = |call: &&[Draft]| {
        // All that are the call's, before one that is missing ends the collecting.
        let own: Vec<Option<Event>> = events.by_ref().take(call.len()).collect();
        if let Some(events) = own.into_iter().collect() {
            return CallOutcome::Appended(events);
        }
        let mut users = call.iter().map(|draft| &draft.user);
        let held: Vec<UserId> = users
            .clone()
            .filter(|user| held.contains(user.as_str()))
            .cloned()
            .collect();
        if !held.is_empty() {
            CallOutcome::BeingCreated(held)
        } else if users.any(|user| untried.contains(user.as_str())) {
            CallOutcome::Untried
        } else {
            CallOutcome::Locked
        }
    };
    Ok(calls.iter().map(outcome).collect())
}

fn names(row: &Row, index: usize) -> Result<HashSet<&str>, StoreError> {
    let names: Vec<&str> = get(row, index)?;
    Ok(names.into_iter().collect())
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(super) enum BatchError {
    Failed(tidings_postgres::Error),
    /// It was, and the reply makes no sense.
    Unreadable(StoreError),
}

/// The drafts as the database takes them, column by column.
#[derive(Default)]
struct Columns<'a> {
    calls: Vec<i32>,
    users: Vec<&'a str>,
    types: Vec<&'a str>,
    payloads: Vec<&'a str>,
    stamps: Vec<i64>,
    keys: Vec<Option<&'a str>>,
    /// Each for a log that does not exist yet.
    epochs: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(calls: impl IntoIterator<Item = &'a [Draft]>) -> Self {
        let mut columns = Self::default();
        for (call, drafts) in (0..).zip(calls) {
            for draft in drafts {
                columns.calls.push(call);
                columns.users.push(draft.user.as_str());
                columns.types.push(draft.event_type.as_str());
                columns.payloads.push(draft.payload.as_str());
                columns.stamps.push(draft.timestamp.as_microsecond());
                columns.keys.push(draft.key.as_ref().map(EventKey::as_str));
            }
        }
        let epochs = Epoch::several(columns.calls.len());
        columns.epochs = epochs.into_iter().map(epoch_column).collect();
        columns
    }

    fn parameters(&self) -> [Parameter<'_>; 7] {
        let [calls, users, types, payloads, stamps, keys, epochs] = TYPES;
        [
            (&self.calls, calls),
            (&self.users, users),
            (&self.types, types),
            (&self.payloads, payloads),
            (&self.stamps, stamps),
            (&self.keys, keys),
            (&self.epochs, epochs),
        ]
    }
}

/// The event of each draft, if it was appended. The only row has the places of those drafts, counted from
/// one, and the epoch and the number of each.
fn events(drafts: &[&Draft], rows: &[Row]) -> Result<Vec<Option<Event>>, StoreError> {
    let row = rows.first().ok_or(TOO_FEW)?;
    let [places, epochs, seqs]: [Vec<i64>; 3] = [get(row, 0)?, get(row, 1)?, get(row, 2)?];
    let mut events = vec![None; drafts.len()];
    for (place, id) in places.into_iter().zip(epochs.into_iter().zip(seqs)) {
        let place = usize::try_from(place - 1).ok();
        let place = place.and_then(|place| Some((events.get_mut(place)?, drafts.get(place)?)));
        let (event, draft) = place.ok_or(TOO_FEW)?;
        let id = EventId::new(epoch(id.0), number(id.1));
        *event = Some(Event::from_draft((*draft).clone(), id));
    }
    Ok(events)
}
