use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Topic;
use crate::topic::{InvalidTopic, Namespace};

/// Topics of one namespace by their names, `<app>.<namespace>.<pattern>`: at most 255 bytes.
///
/// In the last part `*` stands for any text, also for none and for one with dots; all else, and all of
/// the first two parts, stands for itself. `shop.eu.orders.*` is every topic of the namespace
/// `shop.eu` whose name begins with `orders.`, and `shop.eu.*` is all of them. A pattern does not
/// reach into another namespace.
///
/// Made by [`Namespace::pattern`]. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks and takes a full name whose first two parts are checked already.
    pub(crate) fn new(prefix: &str, name: &str) -> Result<Self, InvalidTopic> {
        crate::topic::check_name(prefix, name)?;
        Ok(Self(format!("{prefix}{name}").into()))
    }

    /// The full text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for this topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_name(topic.as_str())
    }

    /// Whether it stands for the topic of this full name.
    pub(crate) fn matches_name(&self, topic: &str) -> bool {
        let (prefix, pattern) = self.split();
        topic
            .strip_prefix(prefix)
            .is_some_and(|name| matches(pattern, name))
    }

    /// `<app>.<namespace>.` and the rest, where `*` stands for any text.
    pub(crate) fn split(&self) -> (&str, &str) {
        let end = self
            .0
            .match_indices('.')
            .nth(1)
            .map_or(0, |(dot, _)| dot + 1);
        self.0.split_at(end)
    }
}

/// Takes each piece between two `*` where it is found first. Nothing is found later by having skipped
/// it, so it looks at each byte of the name a bounded number of times.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name
        .strip_prefix(first)
        .and_then(|name| name.strip_suffix(last))
    else {
        return false;
    };
    middle.split('*').all(|piece| {
        let found = name.split_once(piece);
        name = found.map_or(name, |(_, after)| after);
        found.is_some()
    })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = InvalidTopic;

    /// Reads a full text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = Namespace::split(text)?;
        namespace.pattern(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(name: &str) -> Pattern {
        Namespace::default().pattern(name).unwrap()
    }

    #[test]
    fn an_asterisk_stands_for_any_text() {
        for (text, yes, no) in [
            (
                "orders",
                &["orders"][..],
                &["orders.", "order", "Orders"][..],
            ),
            ("*", &["orders", ".", "*", "é✓"], &[]),
            (
                "orders.*",
                &["orders.", "orders.a.b", "orders.*"],
                &["orders", "xorders.a"],
            ),
            (
                "*.paid",
                &[".paid", "orders.paid", "a.b.paid"],
                &["paid", "orders.paid.x"],
            ),
            ("a*a", &["aa", "aba", "aaa"], &["a", "ab", "ba"]),
            ("a**b", &["ab", "a*b", "axb"], &["a", "b"]),
            (
                "*ab*ab*",
                &["abab", "xabyabz", "ababab"],
                &["ab", "aab", "abxa"],
            ),
            (
                "a?[b]\\*",
                &["a?[b]\\", "a?[b]\\x"],
                &["axb", "a?b", "axb\\"],
            ),
        ] {
            let pattern = pattern(text);
            let topic = |name: &str| Namespace::default().topic(name).unwrap();
            for name in yes {
                assert!(pattern.matches(&topic(name)), "{text} {name}");
            }
            for name in no {
                assert!(!pattern.matches(&topic(name)), "{text} {name}");
            }
        }
    }

    #[test]
    fn a_pattern_stays_in_its_namespace() {
        let star = Namespace::new("a*", "*").unwrap().pattern("*").unwrap();
        assert_eq!(star.as_str(), "a*.*.*");
        assert_eq!(star.as_str().parse(), Ok(star.clone()));
        for (topic, expected) in [
            ("a*.*.x", true),
            ("a*.*.x.y", true),
            ("ab.*.x", false),
            ("a*.b.x", false),
        ] {
            assert_eq!(star.matches(&topic.parse().unwrap()), expected, "{topic}");
        }
        // Of which the texts are alike.
        let pattern: Pattern = "app.default.x".parse().unwrap();
        assert!(!pattern.matches(&"app.defaultx.x".parse().unwrap()));
    }

    #[test]
    fn what_is_no_topic_is_no_pattern() {
        for text in ["", "a.b", "a.b.", ".b.*", "a..*", "a.b.*\n"] {
            assert_eq!(text.parse::<Pattern>().err(), text.parse::<Topic>().err());
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
        let long = format!("a.b.{}", "*".repeat(252));
        assert_eq!(
            long.parse::<Pattern>(),
            Err(InvalidTopic::TooLong { length: 256 })
        );
        assert!(long[..255].parse::<Pattern>().is_ok());
    }

    /// The definition itself, which takes its time.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| defined(rest, &name[at..])),
            Some((byte, rest)) => name
                .split_first()
                .is_some_and(|(first, name)| first == byte && defined(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_defined(text in "[ab.*]{1,8}", name in "[ab.*]{1,8}") {
            let topic = Namespace::default().topic(&name).unwrap();
            let expected = defined(text.as_bytes(), name.as_bytes());
            prop_assert_eq!(pattern(&text).matches(&topic), expected);
        }

        #[test]
        fn whatever_parses_reads_back_as_written(text in ".*\\..*\\..*") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.as_str(), text);
            }
        }
    }
}
