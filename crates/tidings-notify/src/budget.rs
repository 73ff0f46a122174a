//! How many bytes of payload are held at a time.

use crate::Event;

/// What is left of a number of bytes. The first event is always admitted, whatever its size:
/// otherwise a reader could never get past a large one.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    is_untouched: bool,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            left: bytes,
            is_untouched: true,
        }
    }

    /// Takes a payload of this many bytes from the budget. Returns `false` if it is too large for
    /// what is left.
    pub(crate) fn admit(&mut self, bytes: usize) -> bool {
        let first = std::mem::replace(&mut self.is_untouched, false);
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(if first { 0 } else { self.left });
        first || left.is_some()
    }
}

/// What an event counts for: the bytes of its payload. Everything else about it is small.
pub(crate) fn cost(event: &Event) -> usize {
    event.payload.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_always_admitted_and_the_rest_as_long_as_it_fits() {
        let admitted = |sizes: &[usize]| {
            let mut budget = Budget::new(10);
            sizes.iter().take_while(|size| budget.admit(**size)).count()
        };
        assert_eq!(admitted(&[4, 4, 2, 1]), 3);
        assert_eq!(admitted(&[4, 7]), 1);
        assert_eq!(admitted(&[10, 1]), 1);
        assert_eq!(admitted(&[11, 0]), 2);
        assert_eq!(admitted(&[11, 1]), 1);
    }
}
