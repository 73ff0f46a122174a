use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names an endpoint: `ep_` and sixteen hexadecimal digits, drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId(u64);

/// Names a delivery: `dlv_` and sixteen hexadecimal digits, which rise in the order in which
/// deliveries are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId(u64);

/// A text that is not the id of an endpoint or of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `{prefix}` and sixteen hexadecimal digits")]
pub struct InvalidId {
    prefix: &'static str,
}

/// Ids are kept as positive 64-bit integers, which both databases have.
const MAX: u64 = i64::MAX.unsigned_abs();

const ENDPOINT_PREFIX: &str = "ep_";
const DELIVERY_PREFIX: &str = "dlv_";

impl EndpointId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u64(1..=MAX))
    }
}

macro_rules! id {
    ($id:ident, $prefix:expr) => {
        impl $id {
            /// The id as a number, for stores.
            pub fn as_i64(self) -> i64 {
                self.0.cast_signed()
            }

            /// The id that a store kept as this number.
            pub fn from_i64(number: i64) -> Self {
                Self(number.unsigned_abs())
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:016x}", $prefix, self.0)
            }
        }

        impl FromStr for $id {
            type Err = InvalidId;

            /// Reads exactly what `Display` writes: an id has one spelling.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or(invalid)?;
                let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                if digits.len() != 16 || !digits.bytes().all(is_digit) {
                    return Err(invalid);
                }
                let number = u64::from_str_radix(digits, 16).map_err(|_| invalid)?;
                (number <= MAX).then_some(Self(number)).ok_or(invalid)
            }
        }

        impl TryFrom<String> for $id {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }
    };
}

id!(EndpointId, ENDPOINT_PREFIX);
id!(DeliveryId, DELIVERY_PREFIX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written() {
        for _ in 0..100 {
            let id = EndpointId::random();
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(EndpointId::from_i64(id.as_i64()), id);
        }
        let id = DeliveryId::from_i64(i64::MAX);
        assert_eq!(id.to_string(), "dlv_7fffffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "dlv_",
            "1",
            "dlv_1",
            "ep_0000000000000001",
            "dlv_00000000000000FF",
            "dlv_+00000000000000f",
            "dlv_8000000000000000",
            "dlv_00000000000000010",
            " dlv_0000000000000001",
        ] {
            assert!(text.parse::<DeliveryId>().is_err(), "{text:?}");
        }
    }
}
