use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest [`UserId`] and [`EventType`](crate::EventType), in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Who a notification is for: a person or an account.
///
/// An opaque string of 1 to 255 bytes without control characters. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks and takes a user's id.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when the text is empty, longer than 255 bytes, or has a control character.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidName> {
        check_name(id.as_ref()).map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot be a user id or an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("expected 1 to 255 bytes, got none")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("expected 1 to 255 bytes, got {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text has a line break, a NUL or another control character, which the wire formats use.
    #[error("expected no control characters")]
    ControlCharacter,
    /// The text begins with `tidings.`, as the control events of a stream do. Event types only.
    #[error("expected a name that does not begin with `tidings.`")]
    Reserved,
}

pub(crate) fn check_name(text: &str) -> Result<Arc<str>, InvalidName> {
    if text.is_empty() {
        Err(InvalidName::Empty)
    } else if text.len() > MAX_NAME_BYTES {
        Err(InvalidName::TooLong { length: text.len() })
    } else if text.chars().any(char::is_control) {
        Err(InvalidName::ControlCharacter)
    } else {
        Ok(text.into())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> Self {
        user.0.as_ref().to_owned()
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by users be asked with a `&str`.
impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
