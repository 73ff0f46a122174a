use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidings_notify::MAX_NAME_BYTES;

use crate::Error;
use crate::settings::first_double;

/// Which types of events an endpoint gets.
///
/// | pattern | matches |
/// |---|---|
/// | `order.paid` | that type |
/// | `order.*` | every type that begins with `order.` |
/// | `*` | every type except those that begin with `tidings.` |
///
/// Types that begin with `tidings.` are events about endpoints. Only a pattern that begins with
/// `tidings.` matches them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventPattern(Arc<str>);

/// A text that cannot be a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an event type, or a type that ends with `.*`, of 1 to 255 bytes without spaces at \
     its ends and without control characters"
)]
pub struct InvalidPattern;

/// How the types of events about endpoints begin.
pub(crate) const RESERVED_PREFIX: &str = "tidings.";

/// Most patterns of one endpoint.
pub const MAX_PATTERNS: usize = 100;

impl EventPattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`] when the text is empty, longer than 255 bytes, has a control character, a
    /// space at an end, or a `*` that does not stand alone after the last full stop.
    pub fn new(pattern: impl AsRef<str>) -> Result<Self, InvalidPattern> {
        let pattern = pattern.as_ref();
        let stem = match pattern.strip_suffix('*') {
            Some("") => return Ok(Self(pattern.into())),
            Some(stem) if stem.ends_with('.') && stem.len() > 1 => stem,
            Some(_) => return Err(InvalidPattern),
            None => pattern,
        };
        let is_valid = !pattern.is_empty()
            && pattern.len() <= MAX_NAME_BYTES
            && pattern.trim() == pattern
            && !stem.contains('*')
            && !pattern.chars().any(char::is_control);
        is_valid.then(|| Self(pattern.into())).ok_or(InvalidPattern)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether events of this type match.
    pub fn matches(&self, event_type: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some("") => !event_type.starts_with(RESERVED_PREFIX),
            Some(stem) => event_type.len() > stem.len() && event_type.starts_with(stem),
            None => *self.0 == *event_type,
        }
    }
}

/// Whether an endpoint with these patterns gets events of a type. No pattern means every type, as
/// `*` does.
pub(crate) fn any_matches(patterns: &[EventPattern], event_type: &str) -> bool {
    if patterns.is_empty() {
        return !event_type.starts_with(RESERVED_PREFIX);
    }
    patterns.iter().any(|pattern| pattern.matches(event_type))
}

/// Refuses a list that names a pattern twice, or too many.
pub(crate) fn check(patterns: &[EventPattern]) -> Result<(), Error> {
    if patterns.len() > MAX_PATTERNS {
        let expected = format!("at most {MAX_PATTERNS} types, got {}", patterns.len());
        return Err(Error::invalid("event_types", expected));
    }
    match first_double(patterns) {
        None => Ok(()),
        Some(double) => {
            let expected = format!("each type once, got `{}` twice", patterns[double]);
            Err(Error::invalid(format!("event_types[{double}]"), expected))
        }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::new(text)
    }
}

impl TryFrom<String> for EventPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::new(text)
    }
}

impl From<EventPattern> for String {
    fn from(pattern: EventPattern) -> Self {
        pattern.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        EventPattern::new(pattern).unwrap().matches(event_type)
    }

    #[test]
    fn patterns_match_what_the_table_says() {
        assert!(matches("order.paid", "order.paid"));
        assert!(!matches("order.paid", "order.paid.late"));
        assert!(matches("order.*", "order.paid"));
        assert!(matches("order.*", "order.paid.late"));
        assert!(!matches("order.*", "order"));
        assert!(!matches("order.*", "order."));
        assert!(!matches("order.*", "orders.paid"));
        assert!(matches("*", "order"));
        assert!(!matches("*", "tidings.endpoint.disabled"));
        assert!(matches("tidings.*", "tidings.endpoint.disabled"));
        assert!(!any_matches(&[], "tidings.test"));
        assert!(any_matches(&[], "order"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            " order",
            "order ",
            "or*der",
            "order*",
            ".*",
            "**",
            "*.*",
            "a.*.b",
            "a\nb",
            "*.x",
            &"x".repeat(256),
        ] {
            assert_eq!(EventPattern::new(text), Err(InvalidPattern), "{text:?}");
        }
        let twice = ["a", "b", "a"].map(|text| EventPattern::new(text).unwrap());
        assert!(check(&twice).is_err());
        assert!(check(&twice[..2]).is_ok());
    }

    #[test]
    fn an_endpoint_has_a_hundred_patterns_at_most() {
        let numbered = |n| EventPattern::new(format!("type.{n}")).unwrap();
        let many: Vec<_> = (0..=MAX_PATTERNS).map(numbered).collect();
        assert_eq!(MAX_PATTERNS, 100);
        assert!(check(&many[1..]).is_ok());
        let error = check(&many).unwrap_err();
        assert_eq!(error.field(), Some("event_types"));
        let text = error.to_string();
        assert!(text.contains("at most 100 types, got 101"), "{text}");
    }
}
