//! Ending and extending claims.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{GenericClient, Row};

use super::receipts::{self, Run};
use super::{content, failure};
use crate::engine::{GroupKey, Outcome, Receipt, Settlement, headers, time};
use crate::{Error, Headers, Message, NewMessage, StreamName};

const SETTLE: &str = "
    SELECT masks, obeyed, has_freed FROM tidings_stream_settle(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

const SETTLE_IN: &str = "SELECT * FROM tidings_stream_settle_in($1, $2, $3, $4)";

const EXTEND: &str =
    "SELECT masks, obeyed FROM tidings_stream_extend($1, $2, $3, $4, $5, $6, $7, $8)";

/// What settling did.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// For each settlement, whether its receipt was obeyed.
    pub(super) obeyed: Vec<bool>,
    /// Whether some message is to come again, or waited for its ordering key.
    pub(super) has_returned: bool,
    /// The streams that got dead letters.
    pub(super) moved_to: BTreeSet<StreamName>,
}

/// How a claim ends, as a parameter.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Acknowledged,
    Retry {
        delay: i64,
        error: Option<&'a str>,
    },
    Released,
    Dead {
        to: &'a StreamName,
        provenance: &'a Headers,
    },
    Lost,
}

impl End<'_> {
    /// Its number in the database.
    fn kind(self) -> i32 {
        match self {
            Self::Acknowledged => 0,
            Self::Retry { .. } => 1,
            Self::Released => 2,
            Self::Dead { .. } => 3,
            Self::Lost => 4,
        }
    }
}

impl<'a> From<&'a Outcome> for End<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Acknowledged => Self::Acknowledged,
            Outcome::Released => Self::Released,
            Outcome::Retry { delay, error } => Self::Retry {
                delay: time::millis(*delay),
                error: error.as_deref(),
            },
            Outcome::Dead { to, provenance } => Self::Dead { to, provenance },
        }
    }
}

/// Ends claims.
pub(super) async fn settle(
    connections: &Connections,
    group: &GroupKey,
    settlements: &[Settlement],
) -> Result<Settled, Error> {
    let receipts: Vec<Receipt> = settlements.iter().map(|s| s.receipt).collect();
    let ends: Vec<End<'_>> = settlements.iter().map(|s| End::from(&s.outcome)).collect();
    let (obeyed, has_freed) = end(connections, group, &receipts, &ends).await?;
    let mut settled = Settled {
        has_returned: has_freed,
        ..Settled::default()
    };
    for (end, obeyed) in ends.iter().zip(&obeyed) {
        match end {
            End::Retry { .. } | End::Released if *obeyed => settled.has_returned = true,
            End::Dead { to, .. } if *obeyed => {
                settled.moved_to.insert((*to).clone());
            }
            _ => {}
        }
    }
    settled.obeyed = obeyed;
    Ok(settled)
}

/// Acknowledges a message inside a transaction of its handler's own: what the handler does there and the
/// acknowledgement are committed together, or neither is. So the message is handled exactly once, as far as
/// the transaction reaches, whatever is killed.
///
/// If the transaction is rolled back, or never committed, the message is delivered again. If it is
/// committed, the message is settled, whatever the handler returns then.
///
/// Call it last, right before the commit: from then on other claims and settlements of the group wait for the
/// transaction. Its isolation level must be READ COMMITTED, which is the default, and it must find the
/// tables in its search path, as the engine does.
///
/// # Errors
///
/// [`Error::ClaimLost`] if another claim has taken the message, or the group was moved;
/// [`Error::UnknownGroup`]; [`Error::InvalidOption`] for a message that no handler was given;
/// [`Error::Full`] or [`Error::Backend`] when the server refuses it. Roll back then.
///
/// # Cancel safety
///
/// A dropped future may have acknowledged the message in the transaction; roll back then, too.
///
/// ```no_run
/// use tidings_stream::postgres::{settle_in, tokio_postgres};
/// use tidings_stream::{HandlerError, Message};
///
/// async fn pay(
///     client: &mut tokio_postgres::Client, payment: Message,
/// ) -> Result<(), HandlerError> {
///     let transaction = client.transaction().await?;
///     transaction.execute("UPDATE account SET balance = balance + 1", &[]).await?;
///     settle_in(&transaction, &payment).await?;
///     Ok(transaction.commit().await?)
/// }
/// ```
pub async fn settle_in(
    client: &(impl GenericClient + Sync),
    message: &Message,
) -> Result<(), Error> {
    let (group, receipt) = message.begin_settling()?;
    let rows = client
        .query_typed(
            SETTLE_IN,
            &[
                (&group.stream.as_str(), Type::TEXT),
                (&group.group.as_str(), Type::TEXT),
                (&receipt.id.as_u64().cast_signed(), Type::INT8),
                (&receipt.claim.cast_signed(), Type::INT8),
            ],
        )
        .await
        .map_err(failure::statement)?;
    let row = rows.first().ok_or(Error::UnknownGroup)?;
    message.end_settling(row.try_get(0).map_err(failure::column)?)
}

/// Ends claims of messages that turned out to have been trimmed.
pub(super) async fn lose(
    connections: &Connections,
    group: &GroupKey,
    receipts: &[Receipt],
) -> Result<(), Error> {
    let ends = vec![End::Lost; receipts.len()];
    end(connections, group, receipts, &ends).await.map(drop)
}

async fn end(
    connections: &Connections,
    group: &GroupKey,
    receipts: &[Receipt],
    ends: &[End<'_>],
) -> Result<(Vec<bool>, bool), Error> {
    let (runs, singles) = receipts::sort(receipts);
    let end_of = |place: usize| ends.get(place).copied().unwrap_or(End::Acknowledged);
    let is_acknowledged = |place: usize| matches!(end_of(place), End::Acknowledged);
    let masks: Vec<String> = runs
        .iter()
        .map(|run| run.mask(receipts, |_| true))
        .collect();
    let acks: Vec<String> = runs
        .iter()
        .map(|run| run.mask(receipts, is_acknowledged))
        .collect();

    // The place of each item, and which run it is in, counted from 1.
    let mut items: Vec<(usize, i32)> = singles.into_iter().map(|place| (place, 0)).collect();
    for (run, number) in runs.iter().zip(1..) {
        let others = run.places.iter().filter(|place| !is_acknowledged(**place));
        items.extend(others.map(|place| (*place, number)));
    }
    items.sort_unstable();
    let letters = letters(connections, group, receipts, ends, &items).await?;

    let run_claims: Vec<i64> = runs.iter().map(|run| run.claim).collect();
    let bases: Vec<i64> = runs.iter().map(|run| run.base).collect();
    let receipt = |place: usize| receipts.get(place);
    let numbers: Vec<Option<i64>> = items
        .iter()
        .map(|item| receipt(item.0).map(|receipt| receipt.id.as_u64().cast_signed()))
        .collect();
    let claims: Vec<Option<i64>> = items
        .iter()
        .map(|item| receipt(item.0).map(|receipt| receipt.claim.cast_signed()))
        .collect();
    let run_numbers: Vec<i32> = items.iter().map(|item| item.1).collect();
    let kinds: Vec<i32> = items.iter().map(|item| end_of(item.0).kind()).collect();
    let delays: Vec<i64> = items
        .iter()
        .map(|item| match end_of(item.0) {
            End::Retry { delay, .. } => delay,
            _ => 0,
        })
        .collect();
    let errors: Vec<Option<&[u8]>> = items
        .iter()
        .map(|item| match end_of(item.0) {
            End::Retry { error, .. } => error.map(str::as_bytes),
            _ => None,
        })
        .collect();
    let targets: Vec<Option<&str>> = items
        .iter()
        .map(|item| match end_of(item.0) {
            End::Dead { to, .. } => Some(to.as_str()),
            _ => None,
        })
        .collect();
    let row = connections
        .opt_row(
            SETTLE,
            &[
                (&group.stream.as_str(), Type::TEXT),
                (&group.group.as_str(), Type::TEXT),
                (&run_claims, Type::INT8_ARRAY),
                (&bases, Type::INT8_ARRAY),
                (&masks, Type::TEXT_ARRAY),
                (&acks, Type::TEXT_ARRAY),
                (&numbers, Type::INT8_ARRAY),
                (&claims, Type::INT8_ARRAY),
                (&run_numbers, Type::INT4_ARRAY),
                (&kinds, Type::INT4_ARRAY),
                (&delays, Type::INT8_ARRAY),
                (&errors, Type::BYTEA_ARRAY),
                (&targets, Type::TEXT_ARRAY),
                (&letters, Type::BYTEA_ARRAY),
            ],
        )
        .await?
        .ok_or(Error::UnknownGroup)?;
    let places: Vec<usize> = items.into_iter().map(|item| item.0).collect();
    let has_freed = row.try_get(2).map_err(failure::column)?;
    Ok((replies(&row, receipts, &runs, &places)?, has_freed))
}

/// The headers of the dead letters among the items.
async fn letters(
    connections: &Connections,
    group: &GroupKey,
    receipts: &[Receipt],
    ends: &[End<'_>],
    items: &[(usize, i32)],
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let dying = |place: usize| match (ends.get(place), receipts.get(place)) {
        (Some(End::Dead { provenance, .. }), Some(receipt)) => {
            Some((receipt.id.as_u64().cast_signed(), *provenance))
        }
        _ => None,
    };
    let numbers: Vec<i64> = items
        .iter()
        .filter_map(|item| dying(item.0))
        .map(|(number, _)| number)
        .collect();
    if numbers.is_empty() {
        return Ok(vec![None; items.len()]);
    }
    let own = content::headers(connections, &group.stream, &numbers).await?;
    let own: HashMap<i64, Headers> = own.into_iter().collect();
    items
        .iter()
        .map(|item| {
            let Some((number, provenance)) = dying(item.0) else {
                return Ok(None);
            };
            let headers = own.get(&number).cloned().unwrap_or_default();
            let letter = NewMessage::default().with_headers(headers);
            let headers = headers::encode(letter.buried(provenance.clone()).headers())?;
            Ok(headers.map(String::into_bytes))
        })
        .collect()
}

/// Makes claims last for `visibility` from now, at least.
pub(super) async fn extend(
    connections: &Connections,
    group: &GroupKey,
    receipts: &[Receipt],
    visibility: Duration,
) -> Result<Vec<bool>, Error> {
    let (runs, places) = receipts::sort(receipts);
    let run_claims: Vec<i64> = runs.iter().map(|run| run.claim).collect();
    let bases: Vec<i64> = runs.iter().map(|run| run.base).collect();
    let masks: Vec<String> = runs
        .iter()
        .map(|run| run.mask(receipts, |_| true))
        .collect();
    let singles = || places.iter().filter_map(|place| receipts.get(*place));
    let numbers: Vec<i64> = singles()
        .map(|receipt| receipt.id.as_u64().cast_signed())
        .collect();
    let claims: Vec<i64> = singles()
        .map(|receipt| receipt.claim.cast_signed())
        .collect();
    let row = connections
        .opt_row(
            EXTEND,
            &[
                (&group.stream.as_str(), Type::TEXT),
                (&group.group.as_str(), Type::TEXT),
                (&run_claims, Type::INT8_ARRAY),
                (&bases, Type::INT8_ARRAY),
                (&masks, Type::TEXT_ARRAY),
                (&numbers, Type::INT8_ARRAY),
                (&claims, Type::INT8_ARRAY),
                (&time::millis(visibility), Type::INT8),
            ],
        )
        .await?
        .ok_or(Error::UnknownGroup)?;
    replies(&row, receipts, &runs, &places)
}

/// For each receipt whether it was obeyed: by the masks of the runs, and by the list of the items,
/// which has the last word on what is in both.
fn replies(
    row: &Row,
    receipts: &[Receipt],
    runs: &[Run],
    items: &[usize],
) -> Result<Vec<bool>, Error> {
    let masks: Vec<String> = row.try_get(0).map_err(failure::column)?;
    let listed: Option<Vec<bool>> = row.try_get(1).map_err(failure::column)?;
    let mut obeyed = vec![false; receipts.len()];
    for (run, mask) in runs.iter().zip(&masks) {
        for place in &run.places {
            if let (Some(receipt), Some(obeyed)) = (receipts.get(*place), obeyed.get_mut(*place)) {
                *obeyed = run.has(mask, receipt);
            }
        }
    }
    for (place, was_obeyed) in items.iter().zip(listed.unwrap_or_default()) {
        if let Some(obeyed) = obeyed.get_mut(*place) {
            *obeyed = was_obeyed;
        }
    }
    Ok(obeyed)
}
