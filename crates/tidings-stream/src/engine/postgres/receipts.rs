//! Receipts as the database gets them.
//!
//! Those of one claim of new messages lie within one lease, and are sent as a run: the number of the
//! first, and a bit for each number from there on. Those of messages that have a row of their own are
//! sent one by one.

use crate::engine::Receipt;

/// Longest gap within a run: an invented receipt could be anywhere.
const MAX_GAP: i64 = 1024;

/// Receipts of one claim, close to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) claim: i64,
    /// The number of the first.
    pub(super) base: i64,
    /// The places of its receipts among all, in the order of their numbers.
    pub(super) places: Vec<usize>,
    length: usize,
}

impl Run {
    /// A mask with a bit for each of its receipts that `is_set` says yes to.
    pub(super) fn mask(&self, receipts: &[Receipt], is_set: impl Fn(usize) -> bool) -> String {
        let mut mask = vec![b'0'; self.length];
        for place in &self.places {
            if is_set(*place)
                && let Some(receipt) = receipts.get(*place)
                && let Some(bit) = mask.get_mut(self.bit(receipt))
            {
                *bit = b'1';
            }
        }
        mask.into_iter().map(char::from).collect()
    }

    /// Whether a mask has the bit of a receipt.
    pub(super) fn has(&self, mask: &str, receipt: &Receipt) -> bool {
        mask.as_bytes().get(self.bit(receipt)) == Some(&b'1')
    }

    fn bit(&self, receipt: &Receipt) -> usize {
        let offset = receipt.id.as_u64().cast_signed().wrapping_sub(self.base);
        usize::try_from(offset).unwrap_or(usize::MAX)
    }
}

/// The runs of receipts, and the places of those that are in none: of messages that come again. Each
/// receipt counts once, and a number that no message can have not at all.
pub(super) fn sort(receipts: &[Receipt]) -> (Vec<Run>, Vec<usize>) {
    let mut sorted: Vec<(i64, i64, usize)> = receipts
        .iter()
        .enumerate()
        .filter_map(|(place, receipt)| {
            let number = i64::try_from(receipt.id.as_u64()).ok()?;
            let claim = i64::try_from(receipt.claim).ok()?;
            Some((claim, number, place))
        })
        .collect();
    sorted.sort_unstable();
    sorted.dedup_by_key(|(claim, number, _)| (*claim, *number));
    let (mut runs, mut singles): (Vec<Run>, _) = (Vec::new(), Vec::new());
    let mut last = 0;
    for (claim, number, place) in sorted {
        if claim % 2 != 0 {
            singles.push(place);
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.claim == claim && number - last <= MAX_GAP => {
                run.places.push(place);
                run.length = usize::try_from(number - run.base + 1).unwrap_or(0);
            }
            _ => runs.push(Run {
                claim,
                base: number,
                places: vec![place],
                length: 1,
            }),
        }
        last = number;
    }
    // The order in which they were given: dead letters keep it.
    singles.sort_unstable();
    (runs, singles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_receipt_is_sent_once(
            receipts in prop::collection::vec((1..5000_u64, 0..6_u64), 0..300),
        ) {
            let receipts: Vec<Receipt> = receipts
                .into_iter()
                .map(|(number, claim)| Receipt { id: MessageId::from_u64(number), claim })
                .collect();
            let (runs, singles) = sort(&receipts);
            let mut sent: Vec<(u64, u64)> = singles
                .iter()
                .map(|place| (receipts[*place].claim, receipts[*place].id.as_u64()))
                .collect();
            for run in &runs {
                let mask = run.mask(&receipts, |_| true);
                for (bit, number) in mask.bytes().zip(run.base.cast_unsigned()..) {
                    if bit == b'1' {
                        sent.push((run.claim.cast_unsigned(), number));
                    }
                }
                for place in &run.places {
                    prop_assert!(run.has(&mask, &receipts[*place]));
                }
                prop_assert!(mask.len() <= 1024 * run.places.len());
            }
            sent.sort_unstable();
            let mut expected: Vec<(u64, u64)> =
                receipts.iter().map(|receipt| (receipt.claim, receipt.id.as_u64())).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(sent, expected);
        }
    }
}
