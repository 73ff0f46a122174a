//! Ending claims.

use rusqlite::{OptionalExtension, Transaction, params};

use super::group::GroupRow;
use super::lease::Lease;
use super::{append, clock, content, group, lease, trim};
use crate::engine::{GroupKey, Outcome, Receipt, Settled, Settlement, time};
use crate::{Error, Headers, Message, NewMessage, Result, StreamName};

/// Ends claims.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    key: &GroupKey,
    settlements: &[Settlement],
) -> Result<Settled> {
    let group = group::find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let mut settling = Settling {
        transaction,
        stream: &key.stream,
        group,
        now: clock::now(),
        leases: Leases::new(transaction, group.group_id),
        has_freed: false,
    };
    let obeyed = settlements.iter().map(|it| settling.end(it));
    let obeyed = obeyed.collect::<Result<_, _>>()?;
    settling.leases.save()?;
    Ok(Settled {
        obeyed,
        has_freed: settling.has_freed,
    })
}

/// Acknowledges a message inside [a transaction](crate#in-a-transaction) of its handler's own.
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
pub fn settle_in(transaction: &Transaction<'_>, message: &Message) -> Result<()> {
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
) -> Result<Vec<bool>> {
    let GroupRow { group_id, .. } = group::find(transaction, key)?.ok_or(Error::UnknownGroup)?;
    let deadline = clock::now().saturating_add(visibility);
    let mut leases = Leases::new(transaction, group_id);
    let mut obeyed = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let number = receipt.id.as_u64().cast_signed();
        let claim = receipt.claim.cast_signed();
        if let Some(lease) = leases.of(claim)?
            && lease.messages.is_open(receipt.id.as_u64())
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
    fn of(&mut self, claim: i64) -> Result<Option<&mut Lease>> {
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
    fn save(&self) -> Result<()> {
        for lease in self.met.iter().filter_map(|(_, lease)| lease.as_ref()) {
            lease.save(self.transaction)?;
        }
        Ok(())
    }
}

struct Settling<'a> {
    transaction: &'a Transaction<'a>,
    stream: &'a StreamName,
    group: GroupRow,
    now: i64,
    leases: Leases<'a>,
    has_freed: bool,
}

/// What was known of a message whose claim ended.
struct Ended {
    attempts: u32,
    last_error: Option<String>,
    ordering_key: Option<String>,
}

impl Settling<'_> {
    /// Ends one claim; `false` when its receipt is stale, or there is no message that could move.
    fn end(&mut self, settlement: &Settlement) -> Result<bool> {
        let number = settlement.receipt.id.as_u64().cast_signed();
        let claim = settlement.receipt.claim.cast_signed();
        let lease = self.leases.of(claim)?;
        let ended = if lease.is_some_and(|lease| lease.messages.settle(number.cast_unsigned())) {
            Some(Ended {
                attempts: 1,
                last_error: None,
                ordering_key: None,
            })
        } else {
            self.take_retry(number, claim)?
        };
        let Some(mut ended) = ended else {
            return Ok(false);
        };
        match &settlement.outcome {
            Outcome::Acknowledged => self.free(&ended)?,
            Outcome::Retry { delay, error } => {
                ended.last_error.clone_from(error);
                self.put_back(number, time::millis(*delay), &ended)?;
            }
            Outcome::Released => {
                ended.attempts = ended.attempts.saturating_sub(1);
                self.put_back(number, 0, &ended)?;
            }
            Outcome::Dead { to, provenance } => {
                self.free(&ended)?;
                return self.bury(number, to, provenance);
            }
        }
        Ok(true)
    }

    /// Removes the row of a message that a claim has, and returns what it says.
    fn take_retry(&self, number: i64, claim: i64) -> Result<Option<Ended>> {
        let ended = self
            .transaction
            .prepare_cached(
                "DELETE FROM stream_retry WHERE group_id = ?1 AND number = ?2 AND claim = ?3
                 RETURNING attempts, last_error, ordering_key",
            )?
            .query_row([self.group.group_id, number, claim], |row| {
                Ok(Ended {
                    attempts: row.get(0)?,
                    last_error: row.get(1)?,
                    ordering_key: row.get(2)?,
                })
            })
            .optional()?;
        Ok(ended)
    }

    /// Makes a message wait for its next attempt.
    fn put_back(&self, number: i64, delay: i64, ended: &Ended) -> Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT INTO stream_retry
                     (group_id, number, since, due, delay, attempts, last_error, ordering_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.group.group_id,
                number,
                self.now,
                self.now.saturating_add(delay),
                delay,
                ended.attempts,
                ended.last_error,
                ended.ordering_key
            ])?;
        Ok(())
    }

    /// Lets the next message of an ordering key be claimed.
    fn free(&mut self, ended: &Ended) -> Result<()> {
        let key = ended.ordering_key.as_deref();
        self.has_freed |= lease::free_key(self.transaction, self.group.group_id, key, self.now)?;
        Ok(())
    }

    /// Copies a message to a dead-letter stream, in the transaction that ends its claim; `false` if it is gone.
    fn bury(&mut self, number: i64, to: &StreamName, provenance: &Headers) -> Result<bool> {
        let GroupRow {
            group_id,
            stream_id,
            ..
        } = self.group;
        let message = content::find(self.transaction, self.stream, stream_id, number)?;
        let Some(message) = message.transpose()? else {
            group::count_lost(self.transaction, group_id, 1)?;
            return Ok(false);
        };
        let letter = NewMessage::revived(&message).buried(provenance.clone());
        let appended = append::append(self.transaction, to, &[letter])?;
        trim::trim(self.transaction, &appended.row)?;
        self.transaction
            .prepare_cached(
                "UPDATE stream_group SET dead_lettered = dead_lettered + 1 WHERE group_id = ?1",
            )?
            .execute([group_id])?;
        Ok(true)
    }
}
