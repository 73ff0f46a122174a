use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Pattern;

/// Longest [`Topic`] or [`Pattern`], in bytes, with its application, its namespace and the dots between them.
pub const MAX_TOPIC_BYTES: usize = 255;

/// The full name of a topic, `<app>.<namespace>.<name>`: at most 255 bytes.
///
/// Application and namespace are separate so that several systems, or several tenants of one, can
/// share a broker. Both are text without dots; the name may have dots. None of them is empty or has
/// control characters. Names are compared byte by byte: case matters.
///
/// Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// The first two parts of a topic's name. By default `app.default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// `<app>.<namespace>.`
    prefix: Arc<str>,
}

/// A text that cannot be a topic, a pattern, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTopic {
    /// A full name has fewer than three parts.
    #[error("expected `<app>.<namespace>.<name>`")]
    TooFewParts,
    /// A part is empty.
    #[error("expected {part} not to be empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// The application or the namespace has a dot, which ends it.
    #[error("expected {part} to have no dot")]
    Dot {
        /// Which part.
        part: &'static str,
    },
    /// A part has a line break, a NUL or another control character.
    #[error("expected {part} to have no control characters")]
    ControlCharacter {
        /// Which part.
        part: &'static str,
    },
    /// The full name is longer than [`MAX_TOPIC_BYTES`].
    #[error("expected a topic of at most {MAX_TOPIC_BYTES} bytes, got {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

const APP: &str = "the application";
const NAMESPACE: &str = "the namespace";
const NAME: &str = "the name";

impl Namespace {
    /// Checks and takes an application and a namespace of it.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`] when one of them is empty, or has a dot or a control character.
    pub fn new(app: impl AsRef<str>, namespace: impl AsRef<str>) -> Result<Self, InvalidTopic> {
        let (app, namespace) = (app.as_ref(), namespace.as_ref());
        for (part, text) in [(APP, app), (NAMESPACE, namespace)] {
            check(part, text)?;
            if text.contains('.') {
                return Err(InvalidTopic::Dot { part });
            }
        }
        let prefix = format!("{app}.{namespace}.").into();
        Ok(Self { prefix })
    }

    /// The topic of this name.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`] when the name is empty or has a control character, or the full name is
    /// longer than 255 bytes.
    pub fn topic(&self, name: impl AsRef<str>) -> Result<Topic, InvalidTopic> {
        let name = name.as_ref();
        check_name(&self.prefix, name)?;
        Ok(Topic(format!("{}{name}", self.prefix).into()))
    }

    /// The topics whose names are like this one, in which `*` stands for any text.
    ///
    /// # Errors
    ///
    /// As for [`topic`](Self::topic).
    pub fn pattern(&self, name: impl AsRef<str>) -> Result<Pattern, InvalidTopic> {
        Pattern::new(&self.prefix, name.as_ref())
    }

    /// Reads a full name: its namespace, and the last part, which is not checked yet.
    pub(crate) fn split(text: &str) -> Result<(Self, &str), InvalidTopic> {
        let mut parts = text.splitn(3, '.');
        let (Some(app), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTopic::TooFewParts);
        };
        Ok((Self::new(app, namespace)?, name))
    }
}

/// Checks the last part of a full name, and the length of the whole.
pub(crate) fn check_name(prefix: &str, name: &str) -> Result<(), InvalidTopic> {
    check(NAME, name)?;
    let length = prefix.len() + name.len();
    if length > MAX_TOPIC_BYTES {
        return Err(InvalidTopic::TooLong { length });
    }
    Ok(())
}

fn check(part: &'static str, text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        Err(InvalidTopic::Empty { part })
    } else if text.chars().any(char::is_control) {
        Err(InvalidTopic::ControlCharacter { part })
    } else {
        Ok(())
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            prefix: "app.default.".into(),
        }
    }
}

impl Topic {
    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    /// Reads a full name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = Namespace::split(text)?;
        namespace.topic(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_topic_has_three_parts() {
        let shop = Namespace::new("shop", "eu").unwrap();
        let topic = shop.topic("orders.paid").unwrap();
        assert_eq!(topic.as_str(), "shop.eu.orders.paid");
        assert_eq!("shop.eu.orders.paid".parse(), Ok(topic));
        let default = Namespace::default().topic("orders").unwrap();
        assert_eq!(default.to_string(), "app.default.orders");
    }

    #[test]
    fn what_is_no_topic_is_refused_with_its_part() {
        use InvalidTopic::{ControlCharacter, Dot, Empty, TooFewParts, TooLong};
        let long = format!("a.b.{}", "x".repeat(252));
        for (text, expected) in [
            ("", TooFewParts),
            ("orders", TooFewParts),
            ("app.orders", TooFewParts),
            (".b.c", Empty { part: APP }),
            ("a..c", Empty { part: NAMESPACE }),
            ("a.b.", Empty { part: NAME }),
            ("a\0.b.c", ControlCharacter { part: APP }),
            ("a.b.c\n", ControlCharacter { part: NAME }),
            (&long, TooLong { length: 256 }),
        ] {
            assert_eq!(text.parse::<Topic>(), Err(expected), "{text:?}");
        }
        assert!(long[..255].parse::<Topic>().is_ok());
        assert_eq!(Namespace::new("a.b", "c"), Err(Dot { part: APP }));
        assert_eq!(Namespace::new("a", "b.c"), Err(Dot { part: NAMESPACE }));
    }

    proptest! {
        #[test]
        fn parts_that_differ_never_make_the_same_topic(
            one in ["[a-c.]{0,3}", "[a-c.]{0,3}", "[a-c.]{0,3}"],
            other in ["[a-c.]{0,3}", "[a-c.]{0,3}", "[a-c.]{0,3}"],
        ) {
            let topic = |[app, namespace, name]: &[String; 3]| {
                Namespace::new(app, namespace).and_then(|it| it.topic(name)).ok()
            };
            if let (Some(left), Some(right)) = (topic(&one), topic(&other)) {
                prop_assert_eq!(left == right, one == other);
            }
        }

        #[test]
        fn whatever_parses_reads_back_as_written(text in ".*\\..*\\..*") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.as_str(), text);
            }
        }
    }
}
