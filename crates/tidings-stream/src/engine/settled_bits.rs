/// Which messages of one claim are settled: a bit for each, in their order.
///
/// A claim of many messages is kept as its first and last number and these bits, so that it costs as
/// much as a claim of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettledBits {
    first: u64,
    bits: Vec<u8>,
    len: usize,
    open: usize,
}

impl SettledBits {
    /// Of `len` messages from the number `first` on, none is settled.
    pub(crate) fn new(first: u64, len: usize) -> Self {
        Self::from_bytes(first, vec![0; len.div_ceil(8)], len)
    }

    /// The bits of `len` messages as they were kept; missing ones are settled.
    pub(crate) fn from_bytes(first: u64, bits: Vec<u8>, len: usize) -> Self {
        let settled: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        let kept = len.min(bits.len() * 8);
        Self {
            first,
            open: kept.saturating_sub(usize::try_from(settled).unwrap_or(usize::MAX)),
            bits,
            len,
        }
    }

    /// The bits as they are kept: message `i` is bit `i % 8`, counted from the lowest, of byte
    /// `i / 8`.
    #[cfg(any(test, feature = "sqlite"))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Settles a message; `false` when it was settled or is none of these.
    pub(crate) fn settle(&mut self, number: u64) -> bool {
        let is_open = self.is_open(number);
        if is_open
            && let Some(index) = self.index(number)
            && let Some(byte) = self.bits.get_mut(index / 8)
        {
            *byte |= 1 << (index % 8);
            self.open -= 1;
        }
        is_open
    }

    /// Whether a message is one of these and not settled.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        let index = self.index(number);
        index.is_some_and(|index| {
            let byte = self.bits.get(index / 8);
            byte.is_some_and(|byte| byte & 1 << (index % 8) == 0)
        })
    }

    /// How many are not settled.
    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    /// The numbers of those that are not settled, in order.
    pub(crate) fn open(&self) -> impl Iterator<Item = u64> {
        let numbers = (self.first..).take(self.len);
        numbers.filter(|number| self.is_open(*number))
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (index < self.len).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_is_settled_once_and_only_inside(
            first in 1..1000_u64,
            len in 0..600_usize,
            numbers in prop::collection::vec(0..1700_u64, 0..300),
        ) {
            let mut bits = SettledBits::new(first, len);
            let mut open: BTreeSet<u64> = (first..).take(len).collect();
            for number in numbers {
                prop_assert_eq!(bits.settle(number), open.remove(&number));
                bits = SettledBits::from_bytes(first, bits.as_bytes().to_vec(), len);
            }
            prop_assert_eq!(bits.open_count(), open.len());
            prop_assert_eq!(bits.open().collect::<Vec<_>>(), Vec::from_iter(open));
        }
    }
}
