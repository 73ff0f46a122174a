//! The ids of a batch, of which the store returns only what cannot be foreseen.

use crate::MessageId;

/// The ids of `count` messages. Those that repeat no earlier one have numbers that follow each other, from
/// `first` on. The others, and those that were foreseen wrongly, are in `places`: each place, counted from 1,
/// and the number of its message. `foreseen` returns what was expected of a place, given the ids before it,
/// if that was not the next number.
pub(super) fn ids(
    first: u64,
    count: usize,
    places: impl IntoIterator<Item = (u64, u64)>,
    foreseen: impl Fn(usize, &[MessageId]) -> Option<MessageId>,
) -> Vec<MessageId> {
    let mut places = places.into_iter().peekable();
    let mut next = first;
    let mut ids = Vec::with_capacity(count);
    for place in 1..=count {
        let named = places.next_if(|(at, _)| *at == place as u64);
        let id = match named {
            Some((_, number)) => MessageId::from_u64(number),
            None => foreseen(place - 1, &ids).unwrap_or(MessageId::from_u64(next)),
        };
        // A repeat has the number of an earlier message.
        if id.as_u64() == next {
            next += 1;
        }
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_take_no_number() {
        let numbers = |first, count, places: &[(u64, u64)]| -> Vec<u64> {
            let ids = ids(first, count, places.iter().copied(), |_, _| None);
            ids.into_iter().map(MessageId::as_u64).collect()
        };
        assert_eq!(numbers(7, 3, &[]), [7, 8, 9]);
        assert_eq!(numbers(7, 4, &[(1, 2), (3, 7)]), [2, 7, 7, 8]);
        assert_eq!(numbers(7, 0, &[]), [0; 0]);
    }

    #[test]
    fn what_was_foreseen_need_not_be_named_and_can_be_corrected() {
        let foreseen = |place: usize, before: &[MessageId]| match place {
            0 | 3 => Some(MessageId::from_u64(2)),
            4 => Some(before[1]),
            _ => None,
        };
        // The fourth was new, after all.
        let ids = ids(7, 6, [(4, 9)], foreseen);
        let numbers: Vec<u64> = ids.into_iter().map(MessageId::as_u64).collect();
        assert_eq!(numbers, [2, 7, 8, 9, 7, 10]);
    }
}
