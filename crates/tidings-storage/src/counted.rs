//! Numbers with their nouns, for people.

use std::fmt::Display;

/// `1 attempt`, `2 attempts`: of a noun whose plural has an `s` at its end.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_every_other_number_is_plural() {
        assert_eq!(counted(0_u32, "attempt"), "0 attempts");
        assert_eq!(counted(1_u32, "attempt"), "1 attempt");
        assert_eq!(counted(21_usize, "attempt"), "21 attempts");
    }
}
