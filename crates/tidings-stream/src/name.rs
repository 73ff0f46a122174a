use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Error, Result};

/// Longest application name, namespace, stream name or group name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// What [`StreamName::dead_letter`] appends.
const DEAD_LETTER_SUFFIX: &str = ".dead";

/// The start of the names of groups that this package makes for itself.
const RESERVED_PREFIX: &str = "tidings.";

/// The full name of a stream, `<app>.<namespace>.<name>`. Clones share the text.
///
/// Application and namespace hold no full stop and the name may, so two different triples never
/// make the same text. Case and every other character are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// Puts a name together.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] when a part is empty, longer than [`MAX_NAME_BYTES`], has a control
    /// character, or when `app` or `namespace` has a full stop.
    pub fn new(app: &str, namespace: &str, name: &str) -> Result<Self> {
        check_prefix("app", app)?;
        check_prefix("namespace", namespace)?;
        check("stream", name)?;
        Ok(Self([app, ".", namespace, ".", name].concat().into()))
    }

    /// The stream that takes this one's dead letters unless a subscription names another:
    /// `<this>.dead`, a stream like any other.
    #[must_use]
    pub fn dead_letter(&self) -> Self {
        Self(format!("{}{DEAD_LETTER_SUFFIX}", self.0).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its own part, `<name>`: what calls of a handle with this application and namespace take.
    pub fn name(&self) -> &str {
        let mut parts = self.0.splitn(3, '.');
        parts.nth(2).unwrap_or_default()
    }

    /// The name as a label of metrics.
    pub(crate) fn label(&self) -> metrics::SharedString {
        Arc::clone(&self.0).into()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a full name, for instance one that [`Display`](fmt::Display) wrote.
impl FromStr for StreamName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().unwrap_or_default();
        Self::new(next(), next(), next())
    }
}

/// The name of a consumer group, unique within its stream. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] when it is empty, longer than [`MAX_NAME_BYTES`], or has a control
    /// character.
    pub fn new(name: &str) -> Result<Self> {
        check("group", name)?;
        Ok(Self(name.into()))
    }

    /// Takes a name that the application may give to a group of its own.
    pub(crate) fn of_application(name: &str) -> Result<Self> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(invalid("group", InvalidName::Reserved));
        }
        Self::new(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("expected 1 to {MAX_NAME_BYTES} bytes, got 0")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("expected 1 to {MAX_NAME_BYTES} bytes, got {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text has a line break, a NUL or another control character.
    #[error("expected no control characters")]
    ControlCharacter,
    /// The text has a full stop, which separates the parts of a name.
    #[error("expected no full stop")]
    FullStop,
    /// The text begins with `tidings.`, as the names of groups do that this package makes for itself.
    #[error("expected a name that does not begin with `{RESERVED_PREFIX}`")]
    Reserved,
}

fn check_prefix(field: &'static str, text: &str) -> Result<()> {
    check(field, text)?;
    if text.contains('.') {
        return Err(invalid(field, InvalidName::FullStop));
    }
    Ok(())
}

fn check(field: &'static str, text: &str) -> Result<()> {
    let reason = if text.is_empty() {
        InvalidName::Empty
    } else if text.len() > MAX_NAME_BYTES {
        InvalidName::TooLong { length: text.len() }
    } else if text.chars().any(char::is_control) {
        InvalidName::ControlCharacter
    } else {
        return Ok(());
    };
    Err(invalid(field, reason))
}

fn invalid(field: &'static str, source: InvalidName) -> Error {
    Error::InvalidName { field, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_written() {
        for name in ["orders", "a.b.c", "Übersicht", "ORDERS", " "] {
            let full = StreamName::new("app", "default", name).unwrap();
            assert_eq!(full.as_str(), format!("app.default.{name}"));
            assert_eq!(full.to_string().parse::<StreamName>().unwrap(), full);
            assert_eq!(full.name(), name);
        }
    }

    #[test]
    fn the_dead_letter_stream_is_named_after_its_origin() {
        let name = StreamName::new("app", "default", "orders").unwrap();
        assert_eq!(name.dead_letter().as_str(), "app.default.orders.dead");
        assert_eq!(
            name.dead_letter(),
            StreamName::new("app", "default", "orders.dead").unwrap()
        );
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused_by_field() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for (app, namespace, name, wrong) in [
            ("", "n", "s", "app"),
            ("a.b", "n", "s", "app"),
            ("a", "", "s", "namespace"),
            ("a", "n.m", "s", "namespace"),
            ("a", "n", "", "stream"),
            ("a", "n", "line\nbreak", "stream"),
            ("a", "n", long.as_str(), "stream"),
        ] {
            match StreamName::new(app, namespace, name) {
                Err(Error::InvalidName { field, .. }) => assert_eq!(field, wrong),
                other => panic!("{other:?}"),
            }
        }
        assert!(GroupName::new("").is_err());
        assert!("app.default".parse::<StreamName>().is_err());
    }
}
