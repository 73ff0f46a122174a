//! Receipts as the database gets them: runs of those of one claim, each the number of the first and a
//! character for each number from there on.

use crate::engine::Receipt;

/// Longest gap within a run: an invented receipt could be anywhere.
const MAX_GAP: i64 = 1024;

/// Receipts of one claim, close to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) claim: i64,
    /// The number of the first.
    pub(super) base: i64,
    /// The place of each among all receipts, and of its character, in the order of their numbers.
    pub(super) places: Vec<(usize, usize)>,
}

impl Run {
    /// Its text, with a character for each of its receipts and `.` for other numbers.
    pub(super) fn text(&self, character: impl Fn(usize) -> u8) -> String {
        let length = self.places.last().map_or(0, |(_, at)| at + 1);
        let mut text = vec![b'.'; length];
        for (place, at) in &self.places {
            if let Some(written) = text.get_mut(*at) {
                *written = character(*place);
            }
        }
        text.into_iter().map(char::from).collect()
    }
}

/// The runs of receipts. Each receipt counts once, and a number that no message can have not at all.
pub(super) fn runs(receipts: impl Iterator<Item = Receipt>) -> Vec<Run> {
    let mut sorted: Vec<(i64, i64, usize)> = receipts
        .enumerate()
        .filter_map(|(place, receipt)| {
            let number = i64::try_from(receipt.id.as_u64()).ok()?;
            let claim = i64::try_from(receipt.claim).ok()?;
            Some((claim, number, place))
        })
        .collect();
    sorted.sort_unstable();
    sorted.dedup_by_key(|(claim, number, _)| (*claim, *number));
    let near = |a: &(i64, i64, usize), b: &(i64, i64, usize)| a.0 == b.0 && b.1 - a.1 <= MAX_GAP;
    sorted
        .chunk_by(near)
        .filter_map(|run| {
            let &(claim, base, _) = run.first()?;
            let at = |number: i64| usize::try_from(number - base).unwrap_or(0);
            let places = run.iter().map(|(_, number, place)| (*place, at(*number)));
            let places = places.collect();
            Some(Run {
                claim,
                base,
                places,
            })
        })
        .collect()
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
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for run in runs(receipts.iter().copied()) {
                let text = run.text(|_| b'1');
                prop_assert!(text.len() <= 1024 * run.places.len());
                for (character, number) in text.bytes().zip(run.base.cast_unsigned()..) {
                    if character == b'1' {
                        sent.push((run.claim.cast_unsigned(), number));
                    }
                }
                for (place, at) in &run.places {
                    let Receipt { id, claim } = receipts[*place];
                    prop_assert_eq!(id.as_u64(), run.base.cast_unsigned() + *at as u64);
                    prop_assert_eq!(claim, run.claim.cast_unsigned());
                }
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
