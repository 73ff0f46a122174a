//! The error texts for fields with a value of the wrong type. No text of a library reaches a caller.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use tidings_notify::wire::parse_time;
use tidings_notify::{EventKey, EventType, UserId};
use tidings_webhooks::{EventPattern, Format, SignatureScheme};

/// A time in RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = parse_time(&text).ok_or_else(|| D::Error::custom(Self::EXPECTED))?;
        Ok(Self(time))
    }
}

/// A type that a field of a request may have.
pub(crate) trait Field: DeserializeOwned {
    /// What the error says after "expected".
    const EXPECTED: &'static str;

    /// Whether the type has further rules, and the value has the right JSON type for them. Then the error
    /// of the type says which rule is broken.
    fn has_rules_for(_json: &str) -> bool {
        false
    }
}

macro_rules! field {
    ($type:ty, $expected:expr $(, $has_rules_for:expr)?) => {
        impl Field for $type {
            const EXPECTED: &'static str = $expected;

            $(fn has_rules_for(json: &str) -> bool {
                $has_rules_for(json)
            })?
        }
    };
}

field!(String, "a string");
field!(bool, "true or false");
field!(u32, "a whole number from 0 to 4294967295");
field!(u64, "a whole number, 0 or more");
field!(NonZeroU32, "a whole number from 1 to 4294967295");
field!(Vec<u64>, "an array of whole numbers, 0 or more");
field!(BTreeMap<String, String>, "an object whose values are strings");
field!(Format, r#""envelope" or "raw""#);
field!(
    Vec<SignatureScheme>,
    r#"an array of "standard", "timestamped", or both"#
);
field!(
    Time,
    "a time in RFC 3339 such as 2026-11-21T10:00:00Z, at the latest 9999-12-30T22:00:00Z"
);
field!(UserId, "a string", is_string);
field!(EventType, "a string", is_string);
field!(EventKey, "a string", is_string);
field!(Vec<UserId>, "an array of strings", is_array_of_strings);
field!(
    Vec<EventPattern>,
    "an array of strings",
    is_array_of_strings
);

fn is_string(json: &str) -> bool {
    json.starts_with('"')
}

fn is_array_of_strings(json: &str) -> bool {
    serde_json::from_str::<Vec<String>>(json).is_ok()
}
