use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects in a [`Payload`]. Together with the documents that carry it, a
/// list in an object for instance, it stays within the 127 levels that parsers with the usual limit of
/// 128 can read.
pub const MAX_DEPTH: usize = 120;

/// The JSON of a notification: any value, kept as text exactly as it was written, but without the
/// white space between its tokens. That of an event from an SQL function is as the database writes
/// `jsonb`: with a space after each colon and comma.
///
/// Numbers keep every digit and objects keep the order of their keys, because the text is never
/// taken apart. Clones share it.
#[derive(Clone)]
pub struct Payload(Arc<RawValue>);

impl Payload {
    /// Checks and takes JSON text.
    ///
    /// # Errors
    ///
    /// [`InvalidPayload`] when the text is not one JSON value, nests too deep, or has a string that
    /// is not Unicode.
    pub fn parse(json: &str) -> Result<Self, InvalidPayload> {
        let raw: Box<RawValue> = serde_json::from_str(json)?;
        Self::compacted(&raw)
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidPayload`] when the value cannot be JSON (a map whose keys are not text), or nests
    /// too deep.
    pub fn from_value(value: &impl Serialize) -> Result<Self, InvalidPayload> {
        let raw = serde_json::value::to_raw_value(value)?;
        Self::compacted(&raw)
    }

    /// Takes text that a store kept: it was shallow and had no line breaks when it was written, so that only
    /// its being JSON is checked again.
    #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
    pub(crate) fn from_stored(json: String) -> Result<Self, InvalidPayload> {
        Ok(Self(RawValue::from_string(json)?.into()))
    }

    /// The JSON text. It has no line breaks.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    fn compacted(raw: &RawValue) -> Result<Self, InvalidPayload> {
        let compact = without_white_space(raw.get())?;
        if has_lone_surrogate(&compact) {
            return Err(InvalidPayload::LoneSurrogate);
        }
        Ok(Self(RawValue::from_string(compact)?.into()))
    }
}

/// JSON that cannot be a payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPayload {
    /// It is not one JSON value.
    #[error("expected one JSON value")]
    Json(#[from] serde_json::Error),
    /// Its arrays and objects nest deeper than [`MAX_DEPTH`].
    #[error("expected JSON that nests at most {MAX_DEPTH} levels deep")]
    TooDeep,
    /// A string has an escape for half of a surrogate pair (`"\ud800"`): that is no text, and
    /// strict parsers refuse it ([RFC 8259, section 8.2](https://www.rfc-editor.org/rfc/rfc8259#section-8.2)).
    #[error("expected surrogates in pairs, as in \"\\ud83d\\ude00\"")]
    LoneSurrogate,
}

/// Drops the white space between the tokens of valid JSON.
///
/// A line break in a payload would break the framing of Server-Sent Events, and signing wants one
/// spelling. Parsing into a value and writing it again would lose digits of large numbers.
fn without_white_space(json: &str) -> Result<String, InvalidPayload> {
    let mut compact = String::with_capacity(json.len());
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            match character {
                '"' => in_string = true,
                '[' | '{' => depth += 1,
                ']' | '}' => depth -= 1,
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(InvalidPayload::TooDeep);
            }
        }
        compact.push(character);
    }
    Ok(compact)
}

/// Whether an escape in valid JSON stands for half of a surrogate pair.
///
/// `serde_json` lets these pass in text that it does not take apart. A backslash is only ever found
/// within a string, where it begins an escape.
fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json;
    while let Some((_, escape)) = rest.split_once('\\') {
        let Some(digits) = escape.strip_prefix('u') else {
            // Past the escaped character, which may be another backslash.
            let mut characters = escape.chars();
            characters.next();
            rest = characters.as_str();
            continue;
        };
        rest = match code_unit(digits) {
            Some((0xD800..=0xDBFF, after)) => match after.strip_prefix("\\u").and_then(code_unit) {
                Some((0xDC00..=0xDFFF, after)) => after,
                _ => return true,
            },
            Some((0xDC00..=0xDFFF, _)) => return true,
            Some((_, after)) => after,
            // Never in valid JSON.
            None => digits,
        };
    }
    false
}

/// The UTF-16 code unit that four digits of an escape stand for, and what follows them.
fn code_unit(digits: &str) -> Option<(u16, &str)> {
    let (digits, after) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, after))
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Equal texts; `1` and `1.0` differ.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::compacted(&raw).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn white_space_goes_and_everything_else_stays() {
        let payload = Payload::parse(
            " {\n\t\"a b\" : [ 1.00 , 123456789012345678901234567890 ],\r\n\"q\\\" \\\\\": \" é \" } ",
        );
        assert_eq!(
            payload.unwrap().as_str(),
            r#"{"a b":[1.00,123456789012345678901234567890],"q\" \\":" é "}"#
        );
    }

    #[test]
    fn text_that_is_not_one_json_value_is_refused() {
        let too_deep = "[".repeat(200) + &"]".repeat(200);
        for text in ["", "{", "1 2", "nul", "\"\n\"", "NaN", too_deep.as_str()] {
            assert!(Payload::parse(text).is_err(), "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert_eq!(Payload::parse(&deep).unwrap().as_str(), deep);
    }

    #[test]
    fn lone_surrogates_are_refused_and_pairs_pass() {
        for text in [
            r#""\ud800""#,
            r#""\udfff""#,
            r#""\uDE00\uD83D""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83d\n""#,
            r#""\ud83d \ude00""#,
            r#""\ud83d\\ude00""#,
            r#""\\\ud83d""#,
            r#""\u0041\udc00""#,
            r#"{"\ud800":1}"#,
            r#"["fine",{"a":["\ud83d"]}]"#,
        ] {
            let refused = Payload::parse(text).unwrap_err();
            assert!(matches!(refused, InvalidPayload::LoneSurrogate), "{text}");
            assert!(serde_json::from_str::<Payload>(text).is_err(), "{text}");
        }
        for text in [
            r#""\ud83d\ude00""#,
            r#""\uD83D\uDE00\uD83D\uDE00""#,
            r#""\\ud800""#,
            r#""\\\\ud800 \"\\udc00""#,
            r#""\ud7ff\ue000\u0000""#,
        ] {
            assert_eq!(Payload::parse(text).unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn strings_pass_exactly_if_they_are_unicode(units in prop::collection::vec(
            prop_oneof![any::<u16>(), 0xD7FF_u16..=0xE000, Just(0x5C)], 0..6,
        )) {
            let escapes: Vec<_> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let text = format!("\"{}\"", escapes.concat());
            prop_assert_eq!(
                Payload::parse(&text).is_ok(),
                serde_json::from_str::<String>(&text).is_ok(),
                "{}", text
            );
        }

        #[test]
        fn strings_survive_whatever_they_hold(text in ".*") {
            let payload = Payload::from_value(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(payload.as_str()).unwrap(), text);
            prop_assert!(!payload.as_str().contains('\n'));
        }
    }
}
