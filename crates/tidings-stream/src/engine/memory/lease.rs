use std::sync::Arc;

use tokio::time::Instant;

use crate::engine::settled_bits::SettledBits;

/// The claim of a run of new messages.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) consumer: Arc<str>,
    pub(super) since: Instant,
    pub(super) due: Instant,
    lo: u64,
    settled: SettledBits,
    open: usize,
}

impl Lease {
    /// The claim of `len` messages from the number `lo` on.
    pub(super) fn new(
        consumer: Arc<str>,
        since: Instant,
        due: Instant,
        lo: u64,
        len: usize,
    ) -> Self {
        Self {
            consumer,
            since,
            due,
            lo,
            settled: SettledBits::new(len),
            open: len,
        }
    }

    pub(super) fn is_open(&self, number: u64) -> bool {
        self.index(number)
            .is_some_and(|index| self.settled.is_open(index))
    }

    pub(super) fn settle(&mut self, number: u64) {
        if let Some(index) = self.index(number)
            && self.settled.settle(index)
        {
            self.open -= 1;
        }
    }

    /// How many messages are not settled.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// The numbers of those that are not settled, in order.
    pub(super) fn open_numbers(&self) -> impl Iterator<Item = u64> {
        self.settled.open().map(|index| self.lo + index as u64)
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.lo)?).ok()
    }
}
