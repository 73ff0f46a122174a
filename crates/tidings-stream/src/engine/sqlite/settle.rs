//! Ending claims.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction, params};

use super::group::GroupRow;
use super::lease::{Lease, Retry};
use super::{append, clock, content, group, lease, trim};
use crate::engine::{GroupKey, Outcome, Receipt, Settlement, time};
use crate::{Error, Headers, Message, StreamName};

/// What settling did.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// For each settlement, whether its receipt was obeyed.
    pub(super) obeyed: Vec<bool>,
    /// Whether some message is to come again.
    pub(super) has_returned: bool,
    /// The streams that got dead letters.
    pub(super) moved_to: BTreeSet<StreamName>,
}

/// Ends claims. A group that is gone has none.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    key: &GroupKey,
    settlements: &[Settlement],
) -> Result<Settled, Error> {
    let group = group::find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let mut settling = Settling {
        transaction,
        group,
        now: clock::now(),
        leases: Leases::new(transaction, group.group_id),
        result: Settled::default(),
    };
    for settlement in settlements {
        let obeyed = settling.end(settlement)?;
        settling.result.obeyed.push(obeyed);
    }
    settling.leases.save()?;
    Ok(settling.result)
}

/// Acknowledges a message inside a transaction of its handler's own: what the handler does there and the
/// acknowledgement are committed together, or neither is. So the message is handled exactly once, as far as
/// the transaction reaches, whatever is killed.
///
/// If the transaction is rolled back, or never committed, the message is delivered again. If it is
/// committed, the message is settled, whatever the handler returns then.
///
/// # Errors
///
/// [`Error::ClaimLost`] if another claim has taken the message, or the group was moved;
/// [`Error::UnknownGroup`]; [`Error::InvalidOption`] for a message that no handler was given;
/// [`Error::Full`] or [`Error::Backend`] when SQLite fails. Roll back then.
///
/// ```
/// use tidings_sqlite::Database;
/// use tidings_stream::sqlite::settle_in;
/// use tidings_stream::{HandlerError, Message};
///
/// async fn pay(database: Database, payment: Message) -> Result<(), HandlerError> {
///     let paying = database.write(move |transaction| {
///         transaction.execute("UPDATE account SET balance = balance + 1", [])?;
///         settle_in(transaction, &payment)
///     });
///     Ok(paying.await?)
/// }
/// ```
pub fn settle_in(transaction: &Transaction<'_>, message: &Message) -> Result<(), Error> {
    let (group, receipt) = message.begin_settling()?;
    let outcome = Outcome::Acknowledged;
    let settled = settle(transaction, group, &[Settlement { receipt, outcome }])?;
    message.end_settling(settled.obeyed == [true])
}

/// Makes claims last for `visibility` from now. All messages of a lease share its deadline.
pub(super) fn extend(
    transaction: &Transaction<'_>,
    key: &GroupKey,
    receipts: &[Receipt],
    visibility: i64,
) -> Result<Vec<bool>, Error> {
    let GroupRow { group_id, .. } = group::find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let deadline = clock::now().saturating_add(visibility);
    let mut leases = Leases::new(transaction, group_id);
    let mut obeyed = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let number = receipt.id.as_u64().cast_signed();
        let claim = receipt.claim.cast_signed();
        if let Some(lease) = leases.of(claim)?
            && lease.is_open(number)
        {
            lease.extend(transaction, deadline)?;
            obeyed.push(true);
            continue;
        }
        let changed = transaction
            .prepare_cached(
                "UPDATE stream_retry SET due = max(due, ?4)
                 WHERE group_id = ?1 AND number = ?2 AND claim = ?3",
            )?
            .execute(params![group_id, number, claim, deadline])?;
        obeyed.push(changed > 0);
    }
    Ok(obeyed)
}

/// The leases that one call has met.
struct Leases<'a> {
    transaction: &'a Transaction<'a>,
    group_id: i64,
    /// By claim, in the order in which they were met; `None` for a claim that has none.
    met: Vec<(i64, Option<Lease>)>,
}

impl<'a> Leases<'a> {
    fn new(transaction: &'a Transaction<'a>, group_id: i64) -> Self {
        Self {
            transaction,
            group_id,
            met: Vec::new(),
        }
    }

    /// The lease of a claim. Neighbours mostly share one, so the last that was met is looked at
    /// first.
    fn of(&mut self, claim: i64) -> Result<Option<&mut Lease>, Error> {
        let known = self.met.iter().rposition(|(met, _)| *met == claim);
        let index = if let Some(index) = known {
            index
        } else {
            let lease = Lease::find(self.transaction, self.group_id, claim)?;
            self.met.push((claim, lease));
            self.met.len() - 1
        };
        Ok(self
            .met
            .get_mut(index)
            .and_then(|(_, lease)| lease.as_mut()))
    }

    /// Writes what has been settled.
    fn save(&self) -> Result<(), Error> {
        for lease in self.met.iter().filter_map(|(_, lease)| lease.as_ref()) {
            lease.save(self.transaction)?;
        }
        Ok(())
    }
}

struct Settling<'a> {
    transaction: &'a Transaction<'a>,
    group: GroupRow,
    now: i64,
    leases: Leases<'a>,
    result: Settled,
}

impl Settling<'_> {
    /// Ends one claim; `false` when its receipt is stale.
    fn end(&mut self, settlement: &Settlement) -> Result<bool, Error> {
        let number = settlement.receipt.id.as_u64().cast_signed();
        let claim = settlement.receipt.claim.cast_signed();
        let lease = self.leases.of(claim)?;
        if lease.is_some_and(|lease| lease.settle(number)) {
            self.end_first_attempt(number, &settlement.outcome)?;
            return Ok(true);
        }
        self.end_later_attempt(number, claim, &settlement.outcome)
    }

    /// Ends the claim of a message that was in a lease: what comes again gets a row of its own.
    fn end_first_attempt(&mut self, number: i64, outcome: &Outcome) -> Result<(), Error> {
        let retry = match outcome {
            Outcome::Acknowledged => return Ok(()),
            Outcome::Dead { to, provenance } => return self.bury(number, to, provenance),
            Outcome::Released => Retry::now(number, self.now),
            Outcome::Retry { delay, error } => {
                let delay = time::millis(*delay);
                Retry {
                    number,
                    since: self.now,
                    delay,
                    attempts: 1,
                    last_error: error.as_deref(),
                }
            }
        };
        self.result.has_returned = true;
        retry.insert(self.transaction, self.group.group_id)
    }

    /// Ends the claim of a message that has a row of its own.
    fn end_later_attempt(
        &mut self,
        number: i64,
        claim: i64,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        let group_id = self.group.group_id;
        let changed = match outcome {
            Outcome::Acknowledged | Outcome::Dead { .. } => {
                let key: Option<Option<String>> = self
                    .transaction
                    .prepare_cached(
                        "DELETE FROM stream_retry
                         WHERE group_id = ?1 AND number = ?2 AND claim = ?3 RETURNING ordering_key",
                    )?
                    .query_row(params![group_id, number, claim], |row| row.get(0))
                    .optional()?;
                let freed = key.iter().flatten().next().map(String::as_str);
                self.result.has_returned |=
                    lease::free_key(self.transaction, group_id, freed, self.now)?;
                usize::from(key.is_some())
            }
            Outcome::Released => self
                .transaction
                .prepare_cached(
                    "UPDATE stream_retry
                     SET due = ?4, since = ?4, delay = 0, attempts = attempts - 1, claim = NULL,
                         consumer = NULL
                     WHERE group_id = ?1 AND number = ?2 AND claim = ?3",
                )?
                .execute(params![group_id, number, claim, self.now])?,
            Outcome::Retry { delay, error } => {
                let delay = time::millis(*delay);
                self.transaction
                    .prepare_cached(
                        "UPDATE stream_retry
                         SET due = ?4, since = ?7, delay = ?5, claim = NULL, consumer = NULL,
                             last_error = ?6
                         WHERE group_id = ?1 AND number = ?2 AND claim = ?3",
                    )?
                    .execute(params![
                        group_id,
                        number,
                        claim,
                        self.now.saturating_add(delay),
                        delay,
                        error,
                        self.now
                    ])?
            }
        };
        if changed == 0 {
            return Ok(false);
        }
        match outcome {
            Outcome::Acknowledged => {}
            Outcome::Released | Outcome::Retry { .. } => self.result.has_returned = true,
            Outcome::Dead { to, provenance } => self.bury(number, to, provenance)?,
        }
        Ok(true)
    }

    /// Copies a message to a dead-letter stream, in the transaction that ends its claim.
    fn bury(&mut self, number: i64, to: &StreamName, provenance: &Headers) -> Result<(), Error> {
        let GroupRow {
            group_id,
            stream_id,
            ..
        } = self.group;
        let Some(content) = content::find(self.transaction, stream_id, number)? else {
            return group::count_lost(self.transaction, group_id, 1);
        };
        let letter = content.message.buried(provenance.clone());
        let appended = append::append(self.transaction, to, &[letter])?;
        trim::trim(self.transaction, &appended.row)?;
        self.transaction
            .prepare_cached(
                "UPDATE stream_group SET dead_lettered = dead_lettered + 1 WHERE group_id = ?1",
            )?
            .execute([group_id])?;
        self.result.moved_to.insert(to.clone());
        Ok(())
    }
}
