use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use crate::{Attempt, AttemptError, DeliveryErrorCause, ErrorKind, Phases, Response, Verdict};

/// An attempt, or the number of those that are not kept, in 48 bits:
///
/// | bits | of an attempt | of a number |
/// |---|---|---|
/// | 0 to 9 | the status, or twice the place of the error's kind, and one if it is ambiguous | [`OMITTED`] |
/// | 10 to 23 | [how long it took](ELAPSED) | the number |
/// | 24 to 47 | [when it began](BEGAN_AFTER) | the number |
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry([u8; 6]);

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Attempt(Summary),
    /// So many attempts are not kept.
    Omitted(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    outcome: Outcome,
    elapsed: Duration,
    began_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Status(StatusCode),
    Error { kind: ErrorKind, is_ambiguous: bool },
}

/// Above the statuses, which begin at 100 and end at 999.
const OMITTED: u64 = 1000;

const OUTCOME_BITS: u32 = 10;

/// Milliseconds up to nine hours, at most 0.2 % too short.
const ELAPSED: Rounding = Rounding {
    exponent_bits: 4,
    mantissa_bits: 10,
};

/// Milliseconds up to 35 million years, at most 4 millionths too short: a third of a second a day.
const BEGAN_AFTER: Rounding = Rounding {
    exponent_bits: 5,
    mantissa_bits: 19,
};

impl Entry {
    pub(super) fn pack(content: Content) -> Self {
        let bits = match content {
            Content::Attempt(summary) => {
                let times = ELAPSED.round(summary.elapsed)
                    | (BEGAN_AFTER.round(summary.began_after) << ELAPSED.bits());
                summary.outcome.code() | (times << OUTCOME_BITS)
            }
            Content::Omitted(attempts) => OMITTED | (u64::from(attempts) << OUTCOME_BITS),
        };
        let [packed @ .., _, _] = bits.to_le_bytes();
        Self(packed)
    }

    pub(super) fn unpack(self) -> Content {
        let mut bytes = [0; 8];
        bytes[..self.0.len()].copy_from_slice(&self.0);
        let bits = u64::from_le_bytes(bytes);
        let (code, rest) = (low(bits, OUTCOME_BITS), bits >> OUTCOME_BITS);
        match Outcome::from_code(code) {
            Some(outcome) => Content::Attempt(Summary {
                outcome,
                elapsed: ELAPSED.restore(low(rest, ELAPSED.bits())),
                began_after: BEGAN_AFTER.restore(rest >> ELAPSED.bits()),
            }),
            None => Content::Omitted(u32::try_from(rest).unwrap_or(u32::MAX)),
        }
    }
}

impl Outcome {
    fn of(attempt: &Attempt) -> Self {
        match &attempt.result {
            Ok(response) => Self::Status(response.status),
            Err(error) => Self::Error {
                kind: error.kind(),
                is_ambiguous: attempt.is_ambiguous(),
            },
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Status(status) => status.as_u16().into(),
            Self::Error { kind, is_ambiguous } => 2 * kind as u64 + u64::from(is_ambiguous),
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        if code >= OMITTED {
            return None;
        }
        let code = u16::try_from(code).ok()?;
        if let Ok(status) = StatusCode::from_u16(code) {
            return Some(Self::Status(status));
        }
        let kind = *ErrorKind::ALL.get(usize::from(code / 2))?;
        let is_ambiguous = code % 2 == 1;
        Some(Self::Error { kind, is_ambiguous })
    }
}

impl Summary {
    pub(super) fn of(attempt: &Attempt, began_after: Duration) -> Self {
        Self {
            outcome: Outcome::of(attempt),
            elapsed: attempt.elapsed,
            began_after,
        }
    }

    /// Why the attempt failed, as the cause of the end of its delivery.
    pub(super) fn cause(self) -> DeliveryErrorCause {
        match self.outcome {
            Outcome::Status(status) => DeliveryErrorCause::Status(status),
            Outcome::Error { kind, is_ambiguous } => {
                DeliveryErrorCause::Transport(error(kind, is_ambiguous))
            }
        }
    }

    /// The attempt without its phases, its body and the source of its error.
    pub(super) fn attempt(self, number: u32, accepted_at: Timestamp) -> Attempt {
        let result = match self.outcome {
            Outcome::Status(status) => Ok(Response::new(status)),
            Outcome::Error { kind, is_ambiguous } => Err(error(kind, is_ambiguous)),
        };
        Attempt {
            number,
            started_at: accepted_at
                .saturating_add(self.began_after)
                .unwrap_or(accepted_at),
            elapsed: self.elapsed,
            phases: Phases::default(),
            // No other attempt is followed by a next one.
            verdict: Verdict::Retryable,
            result,
        }
    }
}

fn error(kind: ErrorKind, is_ambiguous: bool) -> AttemptError {
    AttemptError::new(kind, kind).ambiguous(is_ambiguous)
}

/// Keeps the leading bits of a number of milliseconds, and how many follow them.
struct Rounding {
    exponent_bits: u32,
    mantissa_bits: u32,
}

impl Rounding {
    const fn bits(&self) -> u32 {
        self.exponent_bits + self.mantissa_bits
    }

    fn round(&self, duration: Duration) -> u64 {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let exponent = (u64::BITS - millis.leading_zeros()).saturating_sub(self.mantissa_bits);
        if exponent >= 1 << self.exponent_bits {
            return low(u64::MAX, self.bits());
        }
        (u64::from(exponent) << self.mantissa_bits) | (millis >> exponent)
    }

    fn restore(&self, rounded: u64) -> Duration {
        let exponent = rounded >> self.mantissa_bits;
        Duration::from_millis(low(rounded, self.mantissa_bits) << exponent)
    }
}

fn low(number: u64, bits: u32) -> u64 {
    number & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        let status = (100_u16..1000).prop_map(|status| {
            let status = StatusCode::from_u16(status).unwrap();
            Outcome::Status(status)
        });
        let kind = prop::sample::select(ErrorKind::ALL.to_vec());
        let error = (kind, any::<bool>())
            .prop_map(|(kind, is_ambiguous)| Outcome::Error { kind, is_ambiguous });
        prop_oneof![status, error]
    }

    /// Whether a time is what another one became when it was rounded.
    fn is_rounded(rounded: Duration, exact: Duration, one_in: u32) -> bool {
        let most = exact / one_in + Duration::from_millis(1);
        rounded <= exact && exact.saturating_sub(rounded) < most
    }

    proptest! {
        #[test]
        fn an_attempt_comes_back_with_its_outcome_and_its_rounded_times(
            outcome in outcome(),
            elapsed in 0_u64..9 * 3600 * 1000,
            began_after in 0_u64..1 << 45,
        ) {
            let (elapsed, began_after) =
                (Duration::from_millis(elapsed), Duration::from_millis(began_after));
            let content = Content::Attempt(Summary { outcome, elapsed, began_after });
            let Content::Attempt(summary) = Entry::pack(content).unpack() else {
                panic!("{content:?}");
            };
            prop_assert_eq!(summary.outcome, outcome);
            prop_assert!(is_rounded(summary.elapsed, elapsed, 500), "{:?}", summary);
            prop_assert!(is_rounded(summary.began_after, began_after, 250_000), "{:?}", summary);
        }

        #[test]
        fn a_number_comes_back(attempts in any::<u32>()) {
            let content = Content::Omitted(attempts);
            prop_assert_eq!(Entry::pack(content).unpack(), content);
        }
    }

    #[test]
    fn times_that_are_too_long_are_the_longest() {
        let longest = Duration::from_millis(1023 << 15);
        for exact in [
            longest,
            longest + Duration::from_millis(1 << 15),
            Duration::MAX,
        ] {
            assert_eq!(ELAPSED.restore(ELAPSED.round(exact)), longest);
        }
    }

    #[test]
    fn short_times_are_exact() {
        for millis in [0, 1, 1023] {
            let exact = Duration::from_millis(millis);
            assert_eq!(ELAPSED.restore(ELAPSED.round(exact)), exact);
        }
        let minutes = Duration::from_millis((1 << 19) - 1);
        assert_eq!(BEGAN_AFTER.restore(BEGAN_AFTER.round(minutes)), minutes);
    }
}
