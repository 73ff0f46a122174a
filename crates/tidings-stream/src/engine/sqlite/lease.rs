//! The claim of a run of new messages: one row, with a bit per message that is settled.

use std::ops::RangeInclusive;

use rusqlite::{Connection, Params, Row, Transaction, params};

use super::clock;
use super::delete::OF_SHOWN_GROUPS;
use super::schema::HELD_BACK;
use crate::engine::settled_bits::SettledBits;
use crate::engine::time;
use crate::{MAX_PUBLISH_KEY_WINDOW, Result};

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
    /// Which of its messages are settled.
    pub(super) messages: SettledBits,
}

/// The columns that [`Lease::read`] reads, in its order.
const LEASE_COLUMNS: &str = "group_id, claim, consumer, since, deadline, lo, hi, settled";

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
            messages: SettledBits::new(lo.cast_unsigned(), length(lo, hi)),
        }
    }

    /// The lease of a claim.
    pub(super) fn find(
        transaction: &Transaction<'_>,
        group_id: i64,
        claim: i64,
    ) -> Result<Option<Self>> {
        let which = "group_id = ?1 AND claim = ?2";
        Ok(Self::select(transaction, which, [group_id, claim])?.pop())
    }

    /// The leases that a condition selects, which may end with an order and a limit.
    pub(super) fn select(
        connection: &Connection,
        which: &str,
        parameters: impl Params,
    ) -> Result<Vec<Self>> {
        let query = format!("SELECT {LEASE_COLUMNS} FROM stream_lease WHERE {which}");
        let mut statement = connection.prepare_cached(&query)?;
        let leases = statement.query_map(parameters, Self::read)?;
        Ok(leases.collect::<Result<_, _>>()?)
    }

    /// Reads the [`LEASE_COLUMNS`].
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let (lo, hi): (i64, i64) = (row.get(5)?, row.get(6)?);
        Ok(Self {
            group_id: row.get(0)?,
            claim: row.get(1)?,
            consumer: row.get(2)?,
            since: row.get(3)?,
            deadline: row.get(4)?,
            lo,
            hi,
            messages: SettledBits::from_bytes(lo.cast_unsigned(), row.get(7)?, length(lo, hi)),
        })
    }

    /// Writes a new lease.
    pub(super) fn insert(&self, transaction: &Transaction<'_>) -> Result<()> {
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
                self.messages.as_bytes(),
                self.consumer,
                self.since
            ])?;
        Ok(())
    }

    /// Lets it last until a deadline, at least.
    pub(super) fn extend(&mut self, transaction: &Transaction<'_>, deadline: i64) -> Result<()> {
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
    pub(super) fn save(&self, transaction: &Transaction<'_>) -> Result<()> {
        if self.messages.open_count() == 0 {
            return self.delete(transaction);
        }
        transaction
            .prepare_cached(
                "UPDATE stream_lease SET settled = ?3 WHERE group_id = ?1 AND claim = ?2",
            )?
            .execute(params![self.group_id, self.claim, self.messages.as_bytes()])?;
        Ok(())
    }

    /// Ends the lease; each open number gets a row of its own, with one attempt counted, and may be
    /// claimed at once. Until it is, the receipt of the lease is still good for it.
    pub(super) fn explode(&self, transaction: &Transaction<'_>, now: i64) -> Result<()> {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO stream_retry
                 (group_id, number, since, due, delay, attempts, claim, consumer)
             VALUES (?1, ?2, ?3, ?4, 0, 1, ?5, ?6)",
        )?;
        for number in self.messages.open() {
            statement.execute(params![
                self.group_id,
                number.cast_signed(),
                self.since,
                now,
                self.claim,
                self.consumer
            ])?;
        }
        self.delete(transaction)
    }

    fn delete(&self, transaction: &Transaction<'_>) -> Result<()> {
        transaction
            .prepare_cached("DELETE FROM stream_lease WHERE group_id = ?1 AND claim = ?2")?
            .execute(params![self.group_id, self.claim])?;
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
) -> Result<bool> {
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

/// In milliseconds; many times what consumers check in for.
const AN_HOUR: i64 = 60 * 60 * 1000;

/// Ends every claim, because no consumer is left to settle it, and lets nothing wait longer than its delay or
/// window, whatever the clock says now.
pub(super) fn bring_back_all(transaction: &Transaction<'_>) -> Result<()> {
    let now = clock::now();
    for lease in Lease::select(transaction, OF_SHOWN_GROUPS, [])? {
        lease.explode(transaction, now)?;
    }
    let recovered = transaction.execute(
        &format!(
            "UPDATE stream_retry SET claim = NULL, consumer = NULL, since = ?1, due = ?1, delay = 0
             WHERE claim IS NOT NULL AND {OF_SHOWN_GROUPS}"
        ),
        [now],
    )?;
    transaction.execute(
        "UPDATE stream_retry SET due = ?1 + delay WHERE due > ?1 + delay",
        [now],
    )?;
    // Else a key would stay in use after its window, and a consumer a member.
    let last = now.saturating_add(time::millis(MAX_PUBLISH_KEY_WINDOW));
    transaction.execute(
        "UPDATE stream_publish_key SET expires = ?1 WHERE expires > ?1",
        [last],
    )?;
    // None of them is there any more. Those that end soon are left to it: a start must need no room on a full disk.
    transaction.execute(
        "DELETE FROM stream_member WHERE expires > ?1",
        [now.saturating_add(AN_HOUR)],
    )?;
    if recovered > 0 {
        tracing::info!(
            messages = recovered,
            "messages that an earlier run had claimed are delivered again"
        );
    }
    Ok(())
}
