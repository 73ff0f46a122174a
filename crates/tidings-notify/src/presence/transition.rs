//! Users coming online and going offline, as the store records them.

use crate::UserId;

/// Transitions that a store keeps for those who watch, unless set.
pub const DEFAULT_KEPT_TRANSITIONS: usize = 65_536;

/// A user came online or went offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Who it was.
    pub user: UserId,
    /// Whether the user is online since.
    pub is_online: bool,
}

/// How far a reader of transitions has come. Only the store that made it knows what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Random, and a new one whenever the numbers begin anew.
    pub epoch: u64,
    /// The number of the last transition that was read.
    pub number: u64,
}

/// A page of transitions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transitions {
    /// Oldest first.
    pub transitions: Vec<Transition>,
    /// Where to continue.
    pub mark: Mark,
    /// Whether some after the mark of the question are missing: they are no longer kept, or the store
    /// has lost its data.
    pub is_lossy: bool,
    /// Whether there is more to be had at once.
    pub has_more: bool,
}

impl Transitions {
    /// The page from the numbers of a store: `first` is that of the first one in the page, if there is
    /// any, and `last` that of the last one which the store has recorded.
    pub fn page(
        after: Option<Mark>,
        epoch: u64,
        last: u64,
        first: Option<u64>,
        transitions: Vec<Transition>,
    ) -> Self {
        let after = match after {
            None => {
                return Self {
                    transitions: Vec::new(),
                    mark: Mark {
                        epoch,
                        number: last,
                    },
                    is_lossy: false,
                    has_more: false,
                };
            }
            Some(mark) if mark.epoch == epoch && mark.number <= last => mark.number,
            // Everything that is kept comes after what was lost.
            Some(_) => {
                return Self {
                    is_lossy: true,
                    ..Self::page(None, epoch, last, None, Vec::new())
                };
            }
        };
        let end = match first {
            None => last,
            Some(first) => first + transitions.len() as u64 - 1,
        };
        Self {
            is_lossy: first.map_or(after < last, |first| after + 1 < first),
            mark: Mark { epoch, number: end },
            has_more: end < last,
            transitions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(after: Option<(u64, u64)>, last: u64, numbers: &[u64]) -> (u64, bool, bool) {
        let transition = Transition {
            user: UserId::new("ann").unwrap(),
            is_online: true,
        };
        let after = after.map(|(epoch, number)| Mark { epoch, number });
        let transitions = vec![transition; numbers.len()];
        let page = Transitions::page(after, 7, last, numbers.first().copied(), transitions);
        (page.mark.number, page.is_lossy, page.has_more)
    }

    #[test]
    fn a_page_says_what_is_missing_before_it_and_what_follows() {
        assert_eq!(page(None, 9, &[]), (9, false, false));
        assert_eq!(page(Some((7, 9)), 9, &[]), (9, false, false));
        assert_eq!(page(Some((7, 6)), 9, &[7, 8, 9]), (9, false, false));
        assert_eq!(page(Some((7, 6)), 9, &[7, 8]), (8, false, true));
        assert_eq!(page(Some((7, 2)), 9, &[7, 8]), (8, true, true));
        assert_eq!(page(Some((7, 2)), 9, &[]), (9, true, false));
        // Of another epoch, or ahead: the store has lost its data.
        assert_eq!(page(Some((6, 9)), 9, &[]), (9, true, false));
        assert_eq!(page(Some((7, 10)), 9, &[]), (9, true, false));
    }
}
