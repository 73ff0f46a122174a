//! The error texts for fields with a value of the wrong type. No text of a library reaches a caller.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidings_notify::wire::parse_time;
use tidings_notify::{EventKey, EventType, InvalidPayload, Payload, UserId};
use tidings_storage::Scope;
use tidings_webhooks::{EventPattern, Format, SignatureScheme};

use super::entries::Entries;
use super::extract::GIVEN_TWICE;

/// A time in RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Timestamp::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Timestamp::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = parse_time(&text).ok_or_else(|| D::Error::custom(Self::expected()))?;
        Ok(Self(time))
    }
}

/// Texts by name. A name that is given twice is refused: one of the two would be ignored.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Texts(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut texts = BTreeMap::new();
        for (name, text) in Entries::<String>::deserialize(deserializer)?.0 {
            if texts.insert(name, text).is_some() {
                return Err(D::Error::custom(GIVEN_TWICE));
            }
        }
        Ok(Self(texts))
    }
}

/// A type that a field of a request may have.
pub(crate) trait Field: DeserializeOwned {
    /// What the error says after "expected".
    fn expected() -> Cow<'static, str>;

    /// Whether the type has further rules, and the value has the right JSON type for them. Then the error
    /// of the type says which rule is broken.
    fn has_rules_for(_json: &str) -> bool {
        false
    }

    /// The part of a value that is wrong, if the value has parts; or what is wrong with one that has the right JSON type.
    fn wrong_part(_json: &str) -> Option<Mistake> {
        None
    }
}

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// The part, as it follows the name of the field: `[1]`, `.name`, or nothing for the whole value.
    pub(crate) part: String,
    pub(crate) message: String,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Self {
        Self {
            part: String::new(),
            message: message.into(),
        }
    }

    fn within(self, part: &str) -> Self {
        let part = format!("{part}{}", self.part);
        Self { part, ..self }
    }
}

/// Parses a value, or says what is wrong with it.
pub(crate) fn parse<T: Field>(json: &str) -> Result<T, Mistake> {
    serde_json::from_str(json).map_err(|error| {
        T::wrong_part(json).unwrap_or_else(|| Mistake::new(message::<T>(json, &error)))
    })
}

fn message<T: Field>(json: &str, error: &serde_json::Error) -> String {
    match Payload::parse(json) {
        Err(half @ InvalidPayload::LoneSurrogate) => half.to_string(),
        _ if T::has_rules_for(json) => reason(error),
        _ => format!("expected {}", T::expected()),
    }
}

/// The error of a type's rules without the position in JSON, which counts from the start of the field
/// and would mislead.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

macro_rules! field {
    ($type:ty, $expected:expr $(, $has_rules_for:expr)?) => {
        impl Field for $type {
            fn expected() -> Cow<'static, str> {
                $expected.into()
            }

            $(fn has_rules_for(json: &str) -> bool {
                $has_rules_for(json)
            })?
        }
    };
}

field!(String, "a string");
field!(bool, "true or false");
field!(Format, r#""envelope" or "raw""#);
field!(SignatureScheme, r#""standard" or "timestamped""#);
field!(
    Scope,
    r#""publish", "read", "endpoints", "metrics" or "admin""#
);
field!(
    Time,
    "a time in RFC 3339 such as 2026-11-21T10:00:00Z, from 0001-01-01T00:00:00Z to 9999-12-30T22:00:00Z"
);
field!(UserId, "a string", is_string);
field!(EventType, "a string", is_string);
field!(EventKey, "a string", is_string);
field!(EventPattern, "a string", is_string);

fn is_string(json: &str) -> bool {
    json.starts_with('"')
}

macro_rules! whole {
    ($(#[$meta:meta])* $name:ident: $type:ty, $unit:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name<const LEAST: $type, const MOST: $type>($type);

        impl<const LEAST: $type, const MOST: $type> $name<LEAST, MOST> {
            pub(crate) fn get(self) -> $type {
                self.0
            }
        }

        impl<'de, const LEAST: $type, const MOST: $type> Deserialize<'de> for $name<LEAST, MOST> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = <$type>::deserialize(deserializer)?;
                if (LEAST..=MOST).contains(&number) {
                    Ok(Self(number))
                } else {
                    Err(D::Error::custom(Self::expected()))
                }
            }
        }

        impl<const LEAST: $type, const MOST: $type> Field for $name<LEAST, MOST> {
            fn expected() -> Cow<'static, str> {
                format!(concat!("a whole number", $unit, " from {} to {}"), LEAST, MOST).into()
            }
        }

        impl<const LEAST: $type, const MOST: $type> Element for $name<LEAST, MOST> {
            fn several() -> Cow<'static, str> {
                format!(concat!("whole numbers", $unit, " from {} to {}"), LEAST, MOST).into()
            }
        }

        impl<const LEAST: $type, const MOST: $type> JsonSchema for $name<LEAST, MOST> {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
            }
        }
    };
}

whole! {
    /// A whole number within a range.
    Whole: u32, ""
}
whole! {
    /// A time in milliseconds, within a range.
    Milliseconds: u64, " of milliseconds"
}
whole! {
    /// A time in seconds, within a range.
    Seconds: u64, " of seconds"
}

/// A type that the elements of an array may have.
trait Element: Field {
    /// What the error says after "expected an array of".
    fn several() -> Cow<'static, str>;
}

impl<T: Element> Field for Vec<T> {
    fn expected() -> Cow<'static, str> {
        format!("an array of {}", T::several()).into()
    }

    fn wrong_part(json: &str) -> Option<Mistake> {
        let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        let mut elements = elements.into_iter().enumerate();
        elements.find_map(|(index, element)| {
            let mistake = parse::<T>(element.get()).err()?;
            Some(mistake.within(&format!("[{index}]")))
        })
    }
}

macro_rules! element {
    ($type:ty, $several:expr) => {
        impl Element for $type {
            fn several() -> Cow<'static, str> {
                $several.into()
            }
        }
    };
}

element!(
    Scope,
    r#""publish", "read", "endpoints", "metrics" and "admin""#
);
element!(UserId, "strings");
element!(EventPattern, "strings");
element!(SignatureScheme, r#""standard", "timestamped", or both"#);

impl Field for Texts {
    fn expected() -> Cow<'static, str> {
        "an object whose values are strings".into()
    }

    fn wrong_part(json: &str) -> Option<Mistake> {
        let Entries(entries) = serde_json::from_str::<Entries<&RawValue>>(json).ok()?;
        let mut names = HashSet::new();
        entries.iter().find_map(|(name, value)| {
            let mistake = match parse::<String>(value.get()) {
                Err(mistake) => mistake,
                Ok(_) if names.insert(name) => return None,
                Ok(_) => Mistake::new(GIVEN_TWICE),
            };
            Some(mistake.within(&format!(".{name}")))
        })
    }
}
