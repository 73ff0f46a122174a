//! Ending and extending claims.

use std::collections::HashMap;
use std::time::Duration;

use tidings_postgres::tokio_postgres::GenericClient;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, params};

use super::held::Groups;
use super::receipts::{Run, runs};
use super::rows::get;
use super::{content, failure};
use crate::engine::{GroupKey, Outcome, Receipt, Settled, Settlement, stored, time};
use crate::{Error, Headers, Message, NewMessage, Result};

const SETTLE: &str =
    "SELECT obeyed, has_freed FROM tidings_stream_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const SETTLE_IN: &str = "SELECT * FROM tidings_stream_settle_in($1, $2, $3, $4)";

const EXTEND: &str = "SELECT tidings_stream_extend($1, $2, $3, $4, $5, $6)";

/// Ends claims.
pub(super) async fn settle(
    groups: Groups<'_>,
    group: &GroupKey,
    settlements: &[Settlement],
) -> Result<Settled> {
    let ends = settlements.iter().map(|it| (it.receipt, Some(&it.outcome)));
    end(groups, group, ends.collect()).await
}

/// Acknowledges a message inside [a transaction](crate#in-a-transaction) of its handler's own.
///
/// Call it last, right before the commit: from then on other claims and settlements of the group wait for the
/// transaction, no longer than [`Config::reply_limit`](super::Config::reply_limit). Other groups do not. Its isolation
/// level must be READ COMMITTED, which is the default, and it must find the tables in its search path, as the
/// engine does.
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
pub async fn settle_in(client: &(impl GenericClient + Sync), message: &Message) -> Result<()> {
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
    message.end_settling(get(row, 0)?)
}

/// Ends claims of messages that turned out to have been trimmed.
pub(super) async fn lose(groups: Groups<'_>, group: &GroupKey, receipts: &[Receipt]) -> Result<()> {
    let ends = receipts.iter().map(|receipt| (*receipt, None));
    end(groups, group, ends.collect()).await.map(drop)
}

/// Ends claims; without an outcome, the message is gone.
async fn end(
    groups: Groups<'_>,
    group: &GroupKey,
    ends: Vec<(Receipt, Option<&Outcome>)>,
) -> Result<Settled> {
    let runs = runs(ends.iter().map(|(receipt, _)| *receipt));
    let (claims, bases) = columns(&runs);
    let outcome = |place: usize| ends.get(place).and_then(|(_, outcome)| *outcome);
    let kind = |place| match outcome(place) {
        Some(Outcome::Acknowledged) => b'a',
        Some(Outcome::Retry { .. }) => b'r',
        Some(Outcome::Released) => b'l',
        Some(Outcome::Dead { .. }) => b'd',
        None => b'x',
    };
    let kinds: Vec<String> = runs.iter().map(|run| run.text(kind)).collect();
    // What the retries and the dead letters have, in their order.
    let (mut delays, mut errors) = (Vec::new(), Vec::new());
    let (mut targets, mut places, mut dying) = (Vec::new(), Vec::new(), Vec::new());
    for run in &runs {
        for (place, at) in &run.places {
            match outcome(*place) {
                Some(Outcome::Retry { delay, error }) => {
                    delays.push(time::millis(*delay));
                    errors.push(error.as_deref().map(str::as_bytes));
                }
                Some(Outcome::Dead { to, provenance }) => {
                    targets.push(to.as_str());
                    places.push(i64::try_from(*place).unwrap_or(i64::MAX));
                    dying.push((run.base.saturating_add_unsigned(*at as u64), provenance));
                }
                _ => {}
            }
        }
    }
    let letters = letters(groups.connections, group, &dying).await?;
    let parameters = params![
        group.stream.as_str(),
        group.group.as_str(),
        claims,
        bases,
        kinds,
        delays,
        errors,
        targets,
        letters,
        places
    ];
    let row = groups.row(group, SETTLE, parameters).await?;
    let row = row.ok_or(Error::UnknownGroup)?;
    Ok(Settled {
        obeyed: obeyed(&runs, &get::<Vec<&str>>(&row, 0)?, ends.len()),
        has_freed: get(&row, 1)?,
    })
}

/// The headers of dead letters: those of the messages, and what their deaths add.
async fn letters(
    connections: &Connections,
    group: &GroupKey,
    dying: &[(i64, &Headers)],
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    if dying.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = dying.iter().map(|(number, _)| *number).collect();
    let own = content::headers(connections, &group.stream, &numbers).await?;
    let own: HashMap<i64, Headers> = own.into_iter().collect();
    let letters = dying.iter().map(|(number, provenance)| {
        let letter =
            NewMessage::default().with_headers(own.get(number).cloned().unwrap_or_default());
        let headers = stored::encode(&letter.buried((*provenance).clone()).headers)?;
        Ok(headers.map(String::into_bytes))
    });
    letters.collect()
}

/// Makes claims last for `visibility` from now, at least.
pub(super) async fn extend(
    groups: Groups<'_>,
    group: &GroupKey,
    receipts: &[Receipt],
    visibility: Duration,
) -> Result<Vec<bool>> {
    let runs = runs(receipts.iter().copied());
    let (claims, bases) = columns(&runs);
    let masks: Vec<String> = runs.iter().map(|run| run.text(|_| b'1')).collect();
    let parameters = params![
        group.stream.as_str(),
        group.group.as_str(),
        claims,
        bases,
        masks,
        time::millis(visibility)
    ];
    let row = groups.row(group, EXTEND, parameters).await?;
    let row = row.ok_or(Error::UnknownGroup)?;
    Ok(obeyed(&runs, &get::<Vec<&str>>(&row, 0)?, receipts.len()))
}

/// The claims of runs, and the numbers of their first messages.
fn columns(runs: &[Run]) -> (Vec<i64>, Vec<i64>) {
    runs.iter().map(|run| (run.claim, run.base)).unzip()
}

/// For each receipt whether it was obeyed, by the bits of its run.
fn obeyed(runs: &[Run], bits: &[&str], count: usize) -> Vec<bool> {
    let mut obeyed = vec![false; count];
    for (run, bits) in runs.iter().zip(bits) {
        for (place, at) in &run.places {
            if let Some(obeyed) = obeyed.get_mut(*place) {
                *obeyed = bits.as_bytes().get(*at) == Some(&b'1');
            }
        }
    }
    obeyed
}
