//! The ids of a batch, of which the store returns only what does not follow from the first.

use crate::MessageId;

/// The ids of `count` messages. Those that repeat no earlier one have numbers that follow each other, from
/// `first` on. The others are in `places`, which may have more: each place, counted from 1, and the number of
/// its message.
pub(super) fn ids(
    first: u64,
    count: usize,
    places: impl IntoIterator<Item = (u64, u64)>,
) -> Vec<MessageId> {
    let mut places = places.into_iter().peekable();
    let mut next = first;
    let mut ids = Vec::with_capacity(count);
    for place in 1..=count {
        let named = places.next_if(|(at, _)| *at == place as u64);
        let number = named.map_or(next, |(_, number)| number);
        // A repeat has the number of an earlier message.
        if number == next {
            next += 1;
        }
        ids.push(MessageId::from_u64(number));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_take_no_number() {
        let numbers = |first, count, places: &[(u64, u64)]| -> Vec<u64> {
            let ids = ids(first, count, places.iter().copied());
            ids.into_iter().map(MessageId::as_u64).collect()
        };
        assert_eq!(numbers(7, 3, &[]), [7, 8, 9]);
        assert_eq!(numbers(7, 4, &[(1, 2), (3, 7)]), [2, 7, 7, 8]);
        assert_eq!(
            numbers(7, 4, &[(1, 2), (2, 7), (3, 7), (4, 8)]),
            [2, 7, 7, 8]
        );
        assert_eq!(numbers(7, 0, &[]), [0; 0]);
    }
}
