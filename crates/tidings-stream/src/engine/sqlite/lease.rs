//! The claim of a run of new messages: one row, with a bit per message that is settled.

use std::ops::RangeInclusive;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::clock;
use super::schema::HELD_BACK;
use crate::Error;
use crate::engine::settled_bits::SettledBits;

/// A row of `stream_lease`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) group_id: i64,
    pub(super) claim: i64,
    pub(super) consumer: String,
    /// When it was claimed.
    pub(super) since: i64,
    pub(super) deadline: i64,
    lo: i64,
    hi: i64,
    settled: SettledBits,
}

/// The columns that [`Lease::read`] reads, in its order.
pub(super) const LEASE_COLUMNS: &str =
    "group_id, claim, consumer, since, deadline, lo, hi, settled";

impl Lease {
    /// The lease of some numbers in order, none of them settled.
    pub(super) fn new(
        group_id: i64,
        claim: i64,
        consumer: &str,
        (since, deadline): (i64, i64),
        numbers: RangeInclusive<i64>,
    ) -> Self {
        let (lo, hi) = numbers.into_inner();
        Self {
            group_id,
            claim,
            consumer: consumer.to_owned(),
            since,
            deadline,
            lo,
            hi,
            settled: SettledBits::new(length(lo, hi)),
        }
    }

    /// Settles a number; `false` when it is not the lease's to settle.
    pub(super) fn settle(&mut self, number: i64) -> bool {
        self.index(number)
            .is_some_and(|index| self.settled.settle(index))
    }

    /// Whether a number is in the lease and not settled.
    pub(super) fn is_open(&self, number: i64) -> bool {
        self.index(number)
            .is_some_and(|index| self.settled.is_open(index))
    }

    /// The numbers that are not settled, in order.
    pub(super) fn open_numbers(&self) -> impl Iterator<Item = i64> {
        let open = self.settled.open();
        open.filter_map(|index| self.lo.checked_add_unsigned(index as u64))
    }

    fn index(&self, number: i64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.lo)?).ok()
    }

    /// Finds the lease of a claim.
    pub(super) fn find(
        transaction: &Transaction<'_>,
        group_id: i64,
        claim: i64,
    ) -> Result<Option<Self>, Error> {
        let lease = transaction
            .prepare_cached(&format!(
                "SELECT {LEASE_COLUMNS} FROM stream_lease WHERE group_id = ?1 AND claim = ?2"
            ))?
            .query_row(params![group_id, claim], Self::read)
            .optional()?;
        Ok(lease)
    }

    /// Reads the [`LEASE_COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let (lo, hi) = (row.get(5)?, row.get(6)?);
        Ok(Self {
            group_id: row.get(0)?,
            claim: row.get(1)?,
            consumer: row.get(2)?,
            since: row.get(3)?,
            deadline: row.get(4)?,
            lo,
            hi,
            settled: SettledBits::from_bytes(row.get(7)?, length(lo, hi)),
        })
    }

    /// Writes a new lease.
    pub(super) fn insert(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .prepare_cached(
                "INSERT INTO stream_lease
                     (group_id, claim, lo, hi, deadline, settled, consumer, since)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.group_id,
                self.claim,
                self.lo,
                self.hi,
                self.deadline,
                self.settled.as_bytes(),
                self.consumer,
                self.since
            ])?;
        Ok(())
    }

    /// Lets it last until a deadline, at least.
    pub(super) fn extend(
        &mut self,
        transaction: &Transaction<'_>,
        deadline: i64,
    ) -> Result<(), Error> {
        if self.deadline < deadline {
            self.deadline = deadline;
            transaction
                .prepare_cached(
                    "UPDATE stream_lease SET deadline = ?3 WHERE group_id = ?1 AND claim = ?2",
                )?
                .execute(params![self.group_id, self.claim, deadline])?;
        }
        Ok(())
    }

    /// Writes what has been settled; a lease without open numbers goes.
    pub(super) fn save(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        if self.open_numbers().next().is_none() {
            return self.delete(transaction);
        }
        transaction
            .prepare_cached(
                "UPDATE stream_lease SET settled = ?3 WHERE group_id = ?1 AND claim = ?2",
            )?
            .execute(params![self.group_id, self.claim, self.settled.as_bytes()])?;
        Ok(())
    }

    /// Ends the lease; each open number gets a row of its own, with one attempt counted, and may be
    /// claimed at once. Until it is, the receipt of the lease is still good for it.
    pub(super) fn explode(&self, transaction: &Transaction<'_>, now: i64) -> Result<(), Error> {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO stream_retry
                 (group_id, number, since, due, delay, attempts, claim, consumer)
             VALUES (?1, ?2, ?3, ?4, 0, 1, ?5, ?6)",
        )?;
        for number in self.open_numbers() {
            statement.execute(params![
                self.group_id,
                number,
                self.since,
                now,
                self.claim,
                self.consumer
            ])?;
        }
        self.delete(transaction)
    }

    fn delete(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .prepare_cached("DELETE FROM stream_lease WHERE group_id = ?1 AND claim = ?2")?
            .execute(params![self.group_id, self.claim])?;
        Ok(())
    }
}

/// A row of `stream_retry` that is not claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry<'a> {
    pub(super) number: i64,
    /// When it was put here.
    pub(super) since: i64,
    pub(super) delay: i64,
    pub(super) attempts: u32,
    pub(super) last_error: Option<&'a str>,
}

impl Retry<'_> {
    /// A message that may be claimed at once, and has not been attempted.
    pub(super) fn now(number: i64, now: i64) -> Self {
        Self {
            number,
            since: now,
            delay: 0,
            attempts: 0,
            last_error: None,
        }
    }

    pub(super) fn insert(&self, transaction: &Transaction<'_>, group_id: i64) -> Result<(), Error> {
        transaction
            .prepare_cached(
                "INSERT INTO stream_retry
                     (group_id, number, since, due, delay, attempts, last_error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                group_id,
                self.number,
                self.since,
                self.since.saturating_add(self.delay),
                self.delay,
                self.attempts,
                self.last_error
            ])?;
        Ok(())
    }
}

/// Lets the first message that waits for an ordering key be claimed, unless an earlier one has the key, and
/// returns whether there is one.
pub(super) fn free_key(
    transaction: &Transaction<'_>,
    group_id: i64,
    key: Option<&str>,
    now: i64,
) -> Result<bool, Error> {
    if key.is_none() {
        return Ok(false);
    }
    let freed = transaction
        .prepare_cached(
            "UPDATE stream_retry SET due = ?3, since = ?3, delay = 0
             WHERE group_id = ?1 AND due = ?4 AND number = (
                 SELECT min(number) FROM stream_retry WHERE group_id = ?1 AND ordering_key = ?2)",
        )?
        .execute(params![group_id, key, now, HELD_BACK])?;
    Ok(freed > 0)
}

/// How many numbers there are from `lo` to `hi`.
fn length(lo: i64, hi: i64) -> usize {
    usize::try_from(hi.saturating_sub(lo).saturating_add(1)).unwrap_or(0)
}

/// Ends every claim, because no consumer is left to settle it, and lets no message wait longer than its
/// delay, whatever the clock says now.
pub(super) fn bring_back_all(transaction: &Transaction<'_>) -> Result<(), Error> {
    let now = clock::now();
    let leases: Vec<Lease> = transaction
        .prepare(&format!("SELECT {LEASE_COLUMNS} FROM stream_lease"))?
        .query_map([], Lease::read)?
        .collect::<Result<_, _>>()?;
    for lease in leases {
        lease.explode(transaction, now)?;
    }
    let recovered = transaction.execute(
        "UPDATE stream_retry SET claim = NULL, consumer = NULL, since = ?1, due = ?1, delay = 0
         WHERE claim IS NOT NULL",
        [now],
    )?;
    transaction.execute(
        "UPDATE stream_retry SET due = ?1 + delay WHERE due > ?1 + delay",
        [now],
    )?;
    if recovered > 0 {
        tracing::info!(
            messages = recovered,
            "messages that an earlier run had claimed are delivered again"
        );
    }
    Ok(())
}
