//! The claim of a run of new messages: one row, with a bit per message that is settled.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::Error;

/// A row of `stream_lease`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) group_id: i64,
    pub(super) claim: i64,
    lo: i64,
    hi: i64,
    settled: Vec<u8>,
}

impl Lease {
    /// The lease of numbers `lo` to `hi`, none of them settled.
    pub(super) fn new(group_id: i64, claim: i64, lo: i64, hi: i64) -> Self {
        let bytes = usize::try_from((hi - lo) / 8 + 1).unwrap_or(0);
        Self {
            group_id,
            claim,
            lo,
            hi,
            settled: vec![0; bytes],
        }
    }

    /// Settles a number; `false` when it is not the lease's to settle.
    pub(super) fn settle(&mut self, number: i64) -> bool {
        if !self.is_open(number) {
            return false;
        }
        let (byte, mask) = self.place(number);
        if let Some(bits) = self.settled.get_mut(byte) {
            *bits |= mask;
        }
        true
    }

    /// Whether a number is in the lease and not settled.
    pub(super) fn is_open(&self, number: i64) -> bool {
        let (byte, mask) = self.place(number);
        (self.lo..=self.hi).contains(&number)
            && self.settled.get(byte).is_some_and(|bits| bits & mask == 0)
    }

    /// The numbers that are not settled, in order.
    pub(super) fn open_numbers(&self) -> impl Iterator<Item = i64> {
        (self.lo..=self.hi).filter(|number| self.is_open(*number))
    }

    fn place(&self, number: i64) -> (usize, u8) {
        let offset = number.saturating_sub(self.lo);
        (
            usize::try_from(offset / 8).unwrap_or(usize::MAX),
            1 << (offset & 7),
        )
    }

    /// Finds the lease of a claim.
    pub(super) fn find(
        transaction: &Transaction<'_>,
        group_id: i64,
        claim: i64,
    ) -> Result<Option<Self>, Error> {
        let lease = transaction
            .prepare_cached(
                "SELECT group_id, claim, lo, hi, settled FROM stream_lease
                 WHERE group_id = ?1 AND claim = ?2",
            )?
            .query_row(params![group_id, claim], Self::read)
            .optional()?;
        Ok(lease)
    }

    /// Reads the columns `group_id, claim, lo, hi, settled`.
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            group_id: row.get(0)?,
            claim: row.get(1)?,
            lo: row.get(2)?,
            hi: row.get(3)?,
            settled: row.get(4)?,
        })
    }

    /// Writes a new lease.
    pub(super) fn insert(&self, transaction: &Transaction<'_>, deadline: i64) -> Result<(), Error> {
        transaction
            .prepare_cached("INSERT INTO stream_lease VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                self.group_id,
                self.claim,
                self.lo,
                self.hi,
                deadline,
                self.settled
            ])?;
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
            .execute(params![self.group_id, self.claim, self.settled])?;
        Ok(())
    }

    /// Ends the lease; each open number gets a row of its own, with one attempt counted, and may be
    /// claimed at once. Answers how many there were.
    pub(super) fn explode(&self, transaction: &Transaction<'_>, now: i64) -> Result<u64, Error> {
        let mut exploded = 0;
        for number in self.open_numbers() {
            let retry = Retry {
                attempts: 1,
                ..Retry::now(number, now)
            };
            retry.insert(transaction, self.group_id)?;
            exploded += 1;
        }
        self.delete(transaction)?;
        Ok(exploded)
    }

    fn delete(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .prepare_cached("DELETE FROM stream_lease WHERE group_id = ?1 AND claim = ?2")?
            .execute(params![self.group_id, self.claim])?;
        Ok(())
    }
}

/// A row of `stream_retry` that nobody has claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry<'a> {
    pub(super) number: i64,
    pub(super) due: i64,
    pub(super) delay: i64,
    pub(super) attempts: u32,
    pub(super) last_error: Option<&'a str>,
}

impl Retry<'_> {
    /// A message that may be claimed at once, and has not been attempted.
    pub(super) fn now(number: i64, now: i64) -> Self {
        Self {
            number,
            due: now,
            delay: 0,
            attempts: 0,
            last_error: None,
        }
    }

    pub(super) fn insert(&self, transaction: &Transaction<'_>, group_id: i64) -> Result<(), Error> {
        transaction
            .prepare_cached(
                "INSERT INTO stream_retry (group_id, number, due, delay, attempts, last_error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                group_id,
                self.number,
                self.due,
                self.delay,
                self.attempts,
                self.last_error
            ])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_settled_once_and_only_inside(
            lo in 1..1000_i64,
            length in 1..600_i64,
            numbers in prop::collection::vec(0..2000_i64, 0..300),
        ) {
            let mut lease = Lease::new(1, 1, lo, lo + length - 1);
            let mut open: BTreeSet<i64> = (lo..lo + length).collect();
            for number in numbers {
                prop_assert_eq!(lease.settle(number), open.remove(&number));
            }
            prop_assert_eq!(lease.open_numbers().collect::<Vec<_>>(), Vec::from_iter(open));
        }
    }
}
