/// Which messages of one claim are settled: a bit for each, in their order.
///
/// A claim of many messages is kept as its first and last number and these bits, so that it costs as
/// much as a claim of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettledBits {
    bits: Vec<u8>,
    len: usize,
}

impl SettledBits {
    /// Of `len` messages, none is settled.
    pub(crate) fn new(len: usize) -> Self {
        Self::from_bytes(vec![0; len.div_ceil(8)], len)
    }

    /// The bits of `len` messages as they were kept; missing ones are settled.
    pub(crate) fn from_bytes(bits: Vec<u8>, len: usize) -> Self {
        Self { bits, len }
    }

    /// The bits as they are kept: message `i` is bit `i % 8`, counted from the lowest, of byte
    /// `i / 8`.
    #[cfg(any(test, feature = "sqlite"))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Settles a message; `false` when it was settled or is none of these.
    pub(crate) fn settle(&mut self, index: usize) -> bool {
        let is_open = self.is_open(index);
        if is_open && let Some(byte) = self.bits.get_mut(index / 8) {
            *byte |= 1 << (index % 8);
        }
        is_open
    }

    /// Whether a message is one of these and not settled.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        index < self.len
            && self
                .bits
                .get(index / 8)
                .is_some_and(|byte| byte & 1 << (index % 8) == 0)
    }

    /// Those that are not settled, in order.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.len).filter(|index| self.is_open(*index))
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
            len in 0..600_usize,
            indexes in prop::collection::vec(0..700_usize, 0..300),
        ) {
            let mut bits = SettledBits::new(len);
            let mut open: BTreeSet<usize> = (0..len).collect();
            for index in indexes {
                prop_assert_eq!(bits.settle(index), open.remove(&index));
                bits = SettledBits::from_bytes(bits.as_bytes().to_vec(), len);
            }
            prop_assert_eq!(bits.open().collect::<Vec<_>>(), Vec::from_iter(open));
        }
    }
}
